"""Layers in stages: devices that each have some of them, and hand rows on from one to the next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llama_jax.sharding import reduce_scatter, stage_axis


class Rows(NamedTuple):
    """What a model reads of its rows."""

    tokens: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    segments: Int[Array, "B T"]


def run_stages(
    embed: Callable[[Int[Array, "R T"]], Float[Array, "R T D"]],
    run_layers: Callable[..., Float[Array, "R T D"]],
    rows: Rows,
    rows_at_once: int,
) -> Float[Array, "B T D"]:
    """Takes the rows of all stages through all stages, `rows_at_once` at a time.

    Within `on_data_shards` alone. Every stage brings rows of its own, which all stages work on,
    and gets back what the last one makes of them. Of `M` pieces of the rows, a stage waits for
    `S - 1` pieces' time in `M + S - 1`; meanwhile it computes what nobody reads. Differentiated,
    the pieces go back through the stages in the opposite order.

    Source: GPipe, Huang et al. 2019 (arXiv:1811.06965), section 2.2.

    Args:
        embed: What the first stage begins with.
        run_layers: `(stream, positions, segments)` through the layers of this stage.
        rows: Of this stage.
        rows_at_once: Divides them.
    """
    axis = stage_axis()
    assert axis is not None
    stage, num_stages = jax.lax.axis_index(axis), jax.lax.axis_size(axis)
    B, T = rows.tokens.shape

    def cut(x: Int[Array, "B T"]) -> Int[Array, "M R T"]:
        everyones = jax.lax.all_gather(x, axis, tiled=True)
        return everyones.reshape(-1, rows_at_once, T)

    pieces = jax.tree.map(cut, rows)
    num_pieces = num_stages * B // rows_at_once
    onward = [(stage, stage + 1) for stage in range(num_stages - 1)]

    def tick(received: Float[Array, "R T D"], time: Int[Array, ""]) -> tuple[Array, Array]:
        # Before its first piece and after its last one a stage repeats either, to no effect.
        number = jnp.clip(time - stage, 0, num_pieces - 1)
        piece = jax.tree.map(lambda x: x[number], pieces)
        x = jnp.where(stage == 0, embed(piece.tokens), received)
        x = run_layers(x, piece.positions, piece.segments)
        return jax.lax.ppermute(x, axis, onward), x

    nothing = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(embed, pieces.tokens[0])
    )
    _, made = jax.lax.scan(tick, nothing, jnp.arange(num_pieces + num_stages - 1))
    made = jnp.where(stage == num_stages - 1, made[num_stages - 1 :], 0)
    return reduce_scatter(made, axis, 0).reshape(B, T, -1)
