"""A model and batches small enough that a step compiles in a second or two."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama_jax.config import (
    AdamW,
    ComputeConfig,
    DataConfig,
    LogConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    WarmupStableDecay,
)
from llama_jax.data.batch import Batch
from llama_jax.model import abstract_params
from llama_jax.sharding import batch_sharding
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import abstract_state, init_state
from llama_jax.train.step import abstract_arguments, make_train_step

MODEL = ModelConfig(
    num_layers=2,
    embed_dim=16,
    mlp_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=64,
    max_seq_len=16,
)


def tiny_config(**changes) -> RunConfig:
    """A run of 20 steps of 8 rows of 16 tokens; `train__num_steps=5` changes a nested field."""
    config = RunConfig(
        name="tiny",
        model=MODEL,
        data=DataConfig(seq_len=16),
        train=TrainConfig(num_steps=20, batch_size=8),
        optimizer=AdamW(peak_lr=1e-2),
        schedule=WarmupStableDecay(warmup_steps=2, decay_steps=4),
        compute=ComputeConfig(dtype="float32", remat="none", loss_chunks=2),
        log=LogConfig(every_steps=1, tensorboard=False),
    )
    for name, value in changes.items():
        owner, _, field = name.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, owner), **{field: value})
        config = dataclasses.replace(config, **{owner: value})
    return config


def random_batch(seed: int, *, rows: int = 8, seq_len: int = 16, vocab: int = 64) -> Batch:
    """Two documents a row, and more padding in later rows, so that no two rows weigh the same."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab, (rows, seq_len + 1), dtype=np.int32)
    cut = rng.integers(2, seq_len // 2, rows)[:, None]
    length = seq_len - np.arange(rows)[:, None] % (seq_len // 2)
    place = np.arange(seq_len)[None]
    real = place < length
    segments = np.where(real, 1 + (place >= cut), 0).astype(np.int32)
    positions = np.where(place >= cut, place - cut, place).astype(np.int32)
    mask = (real & (place != cut - 1) & (place != length - 1)).astype(np.float32)
    return Batch(tokens[:, :-1], tokens[:, 1:], mask, positions, segments)


def counting_batch(seed: int) -> Batch:
    """Rows that count up or down in the vocabulary, from a random start."""
    rng = np.random.default_rng(seed)
    first, step = rng.integers(0, 64, (8, 1)), rng.choice([-2, -1, 1, 2], (8, 1))
    tokens = ((first + step * np.arange(17)) % 64).astype(np.int32)
    ones = np.ones((8, 16), np.int32)
    places = np.broadcast_to(np.arange(16, dtype=np.int32), (8, 16))
    return Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), places, ones)


def on_mesh(batch: Batch, mesh) -> Batch:
    """The batch laid out over the mesh."""
    return jax.tree.map(lambda rows: jax.device_put(jnp.asarray(rows), batch_sharding(mesh)), batch)


# LLVM takes most of the time that a small program takes to compile; tests of what is computed do
# without its optimisations, and are done in a tenth of the time.
COMPILE_QUICKLY: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later ones have no other emitters
    COMPILE_QUICKLY["xla_cpu_use_fusion_emitters"] = False


def start(config: RunConfig):
    """First state and compiled step under the current layout."""
    abstract, step = _program(config, jax.sharding.get_mesh())
    return init_state(fill(abstract.params), make_optimizer(config.optimizer)), step


@functools.cache
def _program(config: RunConfig, mesh: Mesh):
    graphdef, params = abstract_params(config.model, config.compute)
    abstract = abstract_state(params, make_optimizer(config.optimizer))
    step = make_train_step(graphdef, config, abstract)
    lowered = step.lower(*abstract_arguments(config, mesh, abstract, config.train.batch_size))
    return abstract, lowered.compile(compiler_options=COMPILE_QUICKLY)


def fill(abstract):
    """Parameters that depend on their paths alone; much quicker than compiling their own start."""

    def place(path, leaf):
        name = jax.tree_util.keystr(path)
        values = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.02, leaf.shape)
        return jax.device_put((values + ("scale" in name)).astype(np.float32), leaf.sharding)

    return jax.tree_util.tree_map_with_path(place, abstract)
