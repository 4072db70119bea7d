"""The linear maps of a block in 8 bits, through qwix."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What activations and weights are rounded to, and what gradients are: they need range more than
# precision (Micikevicius et al. 2022, arXiv:2209.05433, section 3).
_FORMATS = {"int8": (jnp.int8, jnp.int8), "fp8": (jnp.float8_e4m3fn, jnp.float8_e5m2)}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project_quantized(
    x: Float[Array, "B T *into"], weight: Float[Array, "*into_and_out"], matmul: str
) -> Float[Array, "B T *out"]:
    """Contracts as `project` does, in 8 bits forward and for the gradient of `x`.

    Each token and each output has a scale of its own. The gradient of the weight, a sum over all
    tokens of a batch, is computed in the dtype of `x`.

    Source: SwitchBack, Wortsman et al. 2023 (arXiv:2304.13013), section 2.2. Deviation: weights
    have a scale for each output, not one for all.

    Args:
        x: Activations.
        weight: In the dtype of `x`.
        matmul: As `ComputeConfig.matmul` says: "int8" or "fp8".

    Raises:
        ValueError: If qwix is not installed.
    """
    values, _ = _FORMATS[matmul]
    num_axes = x.ndim - 2
    return _contract(x, weight, range(2, x.ndim), range(num_axes), values, values, matmul)


def _keep_inputs(x: Array, weight: Array, matmul: str) -> tuple[Array, tuple[Array, Array]]:
    return project_quantized(x, weight, matmul), (x, weight)


def _gradients(matmul: str, kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, weight = kept
    values, gradients = _FORMATS[matmul]
    made = range(x.ndim - 2, weight.ndim)
    d_x = _contract(d_out, weight, range(2, d_out.ndim), made, gradients, values, matmul)
    return d_x, jnp.tensordot(x, d_out, ((0, 1), (0, 1)))


project_quantized.defvjp(_keep_inputs, _gradients)


def _contract(
    a: Array,
    b: Array,
    a_axes: Sequence[int],
    b_axes: Sequence[int],
    a_format: Any,
    b_format: Any,
    matmul: str,
) -> Array:
    try:
        import qwix
    except ImportError:
        raise ValueError(
            f"compute.matmul={matmul!r} needs qwix: pip install 'llama-jax[quant]', or leave "
            "compute.matmul='dtype'."
        ) from None
    left, right = (
        qwix.quantize(x, dtype, channelwise_axes=[i for i in range(x.ndim) if i not in axes])
        for x, dtype, axes in ((a, a_format, a_axes), (b, b_format, b_axes))
    )
    contracted = ((tuple(a_axes), tuple(b_axes)), ((), ()))
    return qwix.dot_general(left, right, contracted).astype(a.dtype)
