"""Coordinate checks: how large activations are, width after width, after a few updates.

Source: Yang et al. 2022 (arXiv:2203.03466), appendix D.1. Where a parameterisation is right, no
activation grows or vanishes with width; where one is wrong, some grow as updates add up.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from llama_jax.config import ModelConfig
from llama_jax.data.batch import Batch
from llama_jax.model import Llama
from llama_jax.train.program import Program
from llama_jax.train.schedule import make_schedule
from llama_jax.train.state import TrainState


class Coordinates(NamedTuple):
    """Mean magnitudes of the activations of one model.

    Attributes:
        streams: Of the residual stream, before the first block and after each.
        logits: Of the scores.
    """

    streams: list[float]
    logits: float


def resized(model: ModelConfig, *, embed_dim: int, num_layers: int) -> ModelConfig:
    """The same model with other widths, heads of the same width, and another depth.

    Raises:
        ValueError: If the MLP or the heads would not be whole.
    """
    sizes = {}
    for name in ("mlp_dim", "num_heads", "num_kv_heads"):
        size, rest = divmod(getattr(model, name) * embed_dim, model.embed_dim)
        if rest or not size:
            raise ValueError(
                f"model.embed_dim={embed_dim} in place of {model.embed_dim} would make "
                f"model.{name} {getattr(model, name) * embed_dim / model.embed_dim:g} in place of "
                f"{getattr(model, name)}; take a width that leaves it whole."
            )
        sizes[name] = size
    return dataclasses.replace(model, embed_dim=embed_dim, num_layers=num_layers, **sizes)


def train_in_memory(
    program: Program, batches: Iterable[Batch], *, peak_lr: float
) -> Iterator[tuple[TrainState, Float[Array, ""]]]:
    """Makes an update for each batch, and keeps nothing on disk.

    Args:
        program: Of the run, under whose layout this is called.
        batches: Of the run's size, laid out over the mesh.
        peak_lr: In place of the run's: one program serves every learning rate.

    Yields:
        The state after each update, which the next one consumes, and the loss before it, in nats
        per token.
    """
    config = program.config
    learning_rate = make_schedule(
        config.schedule, peak_lr=peak_lr, num_steps=config.train.num_steps
    )
    state = program.first_state()
    for done, batch in enumerate(batches):
        step = program.step_after(done)
        state, metrics = step(state, batch, np.float32(learning_rate(done)))
        yield state, metrics["loss_nats_per_token"]


def measure(program: Program, batches: Sequence[Batch]) -> list[Coordinates]:
    """Mean magnitudes on the first batch, before any update and after that of each batch."""
    before = program.first_state().params
    look = jax.jit(lambda params: _look(nnx.merge(program.graphdef, params), batches[0]))
    trained = train_in_memory(program, batches, peak_lr=program.config.optimizer.peak_lr)
    seen = [look(before), *(look(state.params) for state, _ in trained)]
    return [Coordinates([float(x) for x in streams], float(logits)) for streams, logits in seen]


def _look(model: Llama, batch: Batch) -> tuple[list[Array], Array]:
    rows = [jnp.asarray(part) for part in (batch.inputs, batch.positions, batch.segments)]
    streams = jnp.mean(jnp.abs(model.streams(*rows)), axis=(1, 2, 3))
    return list(streams), jnp.mean(jnp.abs(model(*rows)))


def growth(sizes: Sequence[float], magnitudes: Sequence[float]) -> float:
    """Exponent of the power law through magnitudes at several sizes; 0 where they are flat."""
    slope, _ = np.polyfit(np.log(sizes), np.log(magnitudes), 1)
    return float(slope)
