"""Adam's moments, kept in fewer bytes between updates than they are computed in."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

BLOCK = 128

# A code of `c` of `L` levels stands for `(c / L) ** power` of its block's largest entry: fine steps
# for small entries, without a table that would be a gather on accelerators. Of the two moments'
# powers one is twice the other, so that an entry and the root of its square round alike: were the
# square the coarser one, a small entry would be divided by far too little.
_MU_LEVELS, _MU_POWER = 127, 4
_NU_LEVELS, _NU_POWER = 255, 8


class Quantized(NamedTuple):
    """One moment of each parameter as codes, and what the largest code of a block stands for.

    Attributes:
        codes: Of the parameters' shapes, in int8 or uint8.
        scales: Float32, with one entry for each block along the axis that is cut into blocks.
    """

    codes: Any
    scales: Any


def keep_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Adam that computes in float32 and keeps both moments in bfloat16, rounded to nearest."""

    def cast(state: Any, dtype: Any) -> Any:
        mu, nu = (optax.tree.cast(moment, dtype) for moment in (state.mu, state.nu))
        return state._replace(mu=mu, nu=nu)

    return _between_updates(
        adam,
        pack=functools.partial(cast, dtype=jnp.bfloat16),
        unpack=functools.partial(cast, dtype=jnp.float32),
    )


def keep_in_int8(
    adam: optax.GradientTransformation, axis_of: Callable[[tuple[Any, ...]], int]
) -> optax.GradientTransformation:
    """Adam that computes in float32 and keeps both moments in 8 bits, block by block.

    Source: Dettmers et al. 2022 (arXiv:2110.02861), section 2: blocks with a scale each, codes
    that are denser near zero, no sign for the second moment. Deviations: codes are powers, not a
    dynamic tree; a block is 128 entries of one axis, not 2048 of the flat array, so that it lies
    on one device.

    Args:
        adam: The rule.
        axis_of: The axis that is cut into blocks, by the path of a parameter: one that is whole on
            each device, or is cut between blocks.
    """

    def encode(tree: Any, levels: int, power: int, dtype: Any) -> Quantized:
        def pair(path: tuple[Any, ...], x: Array) -> tuple[Array, Array]:
            return quantize(x, axis_of(path), levels, power, dtype)

        pairs = jax.tree.map_with_path(pair, tree)
        return Quantized(*jax.tree.transpose(jax.tree.structure(tree), None, pairs))

    def decode(moment: Any, levels: int, power: int) -> Any:
        def one(path: tuple[Any, ...], codes: Array, scales: Array) -> Array:
            return dequantize(codes, scales, axis_of(path), levels, power)

        return jax.tree.map_with_path(one, moment.codes, moment.scales)

    def pack(state: Any) -> Any:
        return state._replace(
            mu=encode(state.mu, _MU_LEVELS, _MU_POWER, jnp.int8),
            nu=encode(state.nu, _NU_LEVELS, _NU_POWER, jnp.uint8),
        )

    def unpack(state: Any) -> Any:
        return state._replace(
            mu=decode(state.mu, _MU_LEVELS, _MU_POWER), nu=decode(state.nu, _NU_LEVELS, _NU_POWER)
        )

    return _between_updates(adam, pack, unpack)


def quantize(
    x: Float[Array, "*axes"], axis: int, levels: int, power: int, dtype: Any
) -> tuple[Integer[Array, "*axes"], Float[Array, "*blocks"]]:
    """Codes of the entries, and the largest magnitude of each block of the axis."""
    blocks = _in_blocks(x, axis)
    scales = jnp.max(jnp.abs(blocks), axis=axis, keepdims=True)
    share = jnp.abs(blocks) / jnp.where(scales > 0, scales, 1)
    # Only zero has the code of zero: a second moment of zero would divide by epsilon alone.
    codes = jnp.sign(blocks) * jnp.maximum(jnp.round(levels * share ** (1 / power)), 1)
    return codes.astype(dtype).reshape(x.shape), jnp.squeeze(scales, axis)


def dequantize(
    codes: Integer[Array, "*axes"],
    scales: Float[Array, "*blocks"],
    axis: int,
    levels: int,
    power: int,
) -> Float[Array, "*axes"]:
    """What the codes stand for, in float32."""
    blocks = _in_blocks(codes, axis).astype(jnp.float32)
    magnitude = (jnp.abs(blocks) / levels) ** power * jnp.expand_dims(scales, axis)
    return (jnp.sign(blocks) * magnitude).reshape(codes.shape)


def _in_blocks(x: Array, axis: int) -> Array:
    """Splits an axis, counted from the end, into blocks and the entries of a block."""
    assert axis < 0
    size = math.gcd(BLOCK, x.shape[axis])
    place = x.ndim + axis
    return x.reshape(*x.shape[:place], -1, size, *x.shape[place + 1 :])


def _between_updates(
    rule: optax.GradientTransformation,
    pack: Callable[[Any], Any],
    unpack: Callable[[Any], Any],
) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = rule.update(updates, unpack(state), params)
        return updates, pack(state)

    return optax.GradientTransformation(lambda params: pack(rule.init(params)), update)
