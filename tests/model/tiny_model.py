"""A LLaMA small enough to compile in a second, and rows of documents for it."""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from llama_jax.config import ComputeConfig, MeshConfig, ModelConfig
from llama_jax.model import Llama, abstract_params, init_params
from llama_jax.sharding import make_mesh, use_layout

MODEL = ModelConfig(
    num_layers=2,
    embed_dim=16,
    mlp_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=64,
    max_seq_len=64,
)
FLOAT32 = ComputeConfig(dtype="float32")
# Compiling is nearly all of these tests' time, and LLVM's part of it changes no claim.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Rows(NamedTuple):
    """What the model reads."""

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


def pack(*rows: list[list[int]], seq_len: int) -> Rows:
    """Each row holds the given documents one after another, then padding."""
    packed = Rows(*np.zeros((3, len(rows), seq_len), np.int32))
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents, start=1):
            place = np.s_[row, start : start + len(document)]
            packed.tokens[place] = document
            packed.positions[place] = np.arange(len(document))
            packed.segments[place] = number
            start += len(document)
    return packed


def random_rows(seed: int, *, rows: int = 8, seq_len: int = 16) -> Rows:
    """Rows of one document each, as long as the row."""
    tokens = np.random.default_rng(seed).integers(0, MODEL.vocab_size, (rows, seq_len))
    return pack(*([row.tolist()] for row in tokens), seq_len=seq_len)


@contextlib.contextmanager
def layout(**sizes: int) -> Iterator[None]:
    """Enters a mesh of exactly these sizes; an axis left out is 1."""
    config = MeshConfig(**{"fsdp": 1, **sizes})
    with use_layout(make_mesh(config, jax.devices()[: math.prod(sizes.values())])):
        yield


def new_params(
    config: ModelConfig = MODEL, compute: ComputeConfig = FLOAT32
) -> tuple[nnx.GraphDef[Llama], nnx.State]:
    """As `init_params` with seed 0, which takes seconds to compile under each layout."""
    graphdef, abstract = abstract_params(config, compute)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return graphdef, jax.device_put(_random_params(config), shardings)


@functools.cache
def _random_params(config: ModelConfig) -> nnx.State:
    with layout(fsdp=1):
        _, params = init_params(config, FLOAT32, 0)
        return jax.tree.map(np.asarray, params)


def new_model(config: ModelConfig = MODEL, compute: ComputeConfig = FLOAT32) -> Llama:
    """A model with random weights under the current layout."""
    return nnx.merge(*new_params(config, compute))


@jit
def hidden(model: Llama, rows: Rows) -> jax.Array:
    return model.hidden(*rows)


@jit
def logits(model: Llama, rows: Rows) -> jax.Array:
    return model(*rows)
