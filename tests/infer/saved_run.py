"""A run's folder with a tokenizer and two checkpoints, as training leaves it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from llama_jax.checkpoint.checkpointer import Checkpointer
from llama_jax.config import (
    AdamW,
    ComputeConfig,
    Cosine,
    DataConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.model.init import abstract_params
from llama_jax.recipe import to_json
from llama_jax.sharding import make_mesh, use_layout

# The tokenizer has 320 ids; the table is padded, as it is for splitting it evenly.
CONFIG = RunConfig(
    name="saved",
    model=ModelConfig(
        num_layers=2,
        embed_dim=32,
        mlp_dim=48,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=384,
        max_seq_len=64,
    ),
    data=DataConfig(seq_len=32),
    train=TrainConfig(num_steps=10, batch_size=4),
    optimizer=AdamW(peak_lr=1e-3),
    schedule=Cosine(warmup_steps=2),
    compute=ComputeConfig(dtype="float32"),
)
TEXT = ["the quick brown fox jumps over the lazy dog", "def main(): return 12345"] * 20


def random_params(
    model: ModelConfig, compute: ComputeConfig, *, scale: float
) -> tuple[nnx.GraphDef, nnx.State]:
    """Larger weights than a fresh model has: its next token depends on all of the row."""
    graphdef, abstract = abstract_params(model, compute)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(scale * rng.standard_normal(leaf.shape, dtype=np.float32))

    return graphdef, jax.tree.map(draw, abstract)


def write_run(folder: Path) -> Path:
    """Writes the folder, with checkpoints of steps 5 and 10 of different parameters."""
    folder.mkdir()
    (folder / "config.json").write_text(to_json(CONFIG))
    train_sentencepiece(TEXT, folder / "tokenizer.model", vocab_size=320)
    mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
    with use_layout(mesh), Checkpointer(folder / "checkpoints", CONFIG.checkpoint) as checkpointer:
        for step in (5, 10):
            _, params = random_params(CONFIG.model, CONFIG.compute, scale=0.05 * step)
            state = {"params": params, "opt_state": {"mu": params}}
            checkpointer.save(step, state, {"step": step, "tokens": step * 128})
    return folder
