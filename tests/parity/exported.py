"""Models exported and read on both sides: the family's shapes at small size, and trained stories.

No test stands here and PyTorch is imported where it is used, so that test modules which skip
themselves without it can share this one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config, read_model
from llama_jax.config import (
    AdamW,
    ComputeConfig,
    Cosine,
    DataConfig,
    LinearRope,
    Llama3Rope,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
)
from llama_jax.convert.mapping import our_shapes
from llama_jax.model.init import abstract_params
from tests.model.test_trained_weights import CHECKPOINT

MODEL = ModelConfig(
    num_layers=3,
    embed_dim=64,
    mlp_dim=112,
    num_heads=8,
    num_kv_heads=8,
    head_dim=8,
    vocab_size=512,
    max_seq_len=160,
)
VARIANTS = {
    "multi-head": MODEL,
    "grouped-query": dataclasses.replace(MODEL, num_kv_heads=2, rope=PlainRope(theta=5e5)),
    "wide heads": dataclasses.replace(MODEL, num_heads=4, num_kv_heads=2, head_dim=32),
    "llama3 rope": dataclasses.replace(
        MODEL,
        num_kv_heads=4,
        head_dim=16,
        rope=Llama3Rope(theta=1e3, factor=8.0, original_seq_len=32),
    ),
    "linear rope": dataclasses.replace(MODEL, rope=LinearRope(factor=4.0)),
    "tied": dataclasses.replace(MODEL, tie_embeddings=True, norm_eps=1e-6),
}


def run_config(model: ModelConfig) -> RunConfig:
    return RunConfig(
        name="parity",
        model=model,
        data=DataConfig(seq_len=32),
        train=TrainConfig(num_steps=10, batch_size=4),
        optimizer=AdamW(peak_lr=1e-3),
        schedule=Cosine(warmup_steps=2),
    )


def random_weights(model: ModelConfig) -> dict[str, np.ndarray]:
    """Weights whose logits differ by units, not by thousandths as a fresh model's do."""
    rng = np.random.default_rng(0)
    weights = {}
    for path, shape in our_shapes(model).items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        weights[path] = 1 + 0.2 * noise if path.endswith("scale") else noise * model.embed_dim**-0.5
    return weights


def our_model(model: ModelConfig, weights: dict[str, np.ndarray]):
    graphdef, abstract = abstract_params(model, ComputeConfig(dtype="float32"))

    def fill(path, leaf):
        name = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
        return jnp.asarray(weights[name] if name in weights else weights[f"{name}.value"])

    return nnx.merge(graphdef, jax.tree.map_with_path(fill, abstract))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run imported from llama2.c's file, and its exports."""
    folder = tmp_path_factory.mktemp("stories")
    run_dir = str(folder / "run")
    assert main(["convert", "from-llama2c", str(CHECKPOINT), run_dir]) == 0
    for dtype in ("float32", "bfloat16"):
        arguments = [run_dir, str(folder / dtype), "--without-tokenizer", "--dtype", dtype]
        assert main(["convert", "to-hf", *arguments]) == 0
    return folder


def read_ours(run_dir, dtype="float32", *, rounded=False):
    """Our model, which computes in a dtype, perhaps with weights rounded to bfloat16."""
    config = read_config(run_dir)
    params = read_model(run_dir, config, None).params
    if rounded:
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    return nnx.merge(abstract_params(config.model, ComputeConfig(dtype=dtype))[0], params)


def read_theirs(folder, dtype):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
