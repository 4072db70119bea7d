"""Launches of hand-written kernels, which the compiler sees as black boxes."""

import dataclasses
import math
import re

from llama_jax.aot.hlo import Array, Computation, Instruction, MalformedText

_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_COST_ESTIMATE = re.compile(r'"cost_estimate":\{[^{}]*"flops":"?(\d+)')
# Matmuls of `queries * keys * head_dim` multiply-adds: scores and mixing forward; backward, the
# scores again, and what they, values, keys and queries (left out where another kernel does them)
# are due.
_SPLASH_MATMULS = (
    (re.compile(r"splash_m[hq]a_fwd"), 2),
    (re.compile(r"splash_m[hq]a_dkv"), 4),
    (re.compile(r"splash_m[hq]a_dq"), 3),
)
_FUSED_BACKWARD = 5
_CUDNN_ATTENTION = "__cudnn$fmha"
_SCORES_SHAPE = re.compile(r'"intermediate_tensor_shape":\s*\{[^}]*?"dimensions":\s*\[([^\]]*)\]')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """All launches of one kernel, per device and step.

    Attributes:
        name: Of the kernel.
        launches: How often it is started.
        flops: Of all launches. Attention counts the scores below the diagonal, those that the
            backward pass computes again included; 0 for a kernel that neither is known nor
            states a cost estimate.
        bytes: Operands and results of all launches.
    """

    name: str
    launches: int
    flops: float
    bytes: int


def target(instruction: Instruction) -> str:
    """What a custom call calls."""
    found = _TARGET.search(instruction.attributes)
    return found[1] if found else ""


def is_kernel(instruction: Instruction) -> bool:
    """Whether this launches a Pallas kernel of a TPU, or cuDNN's attention."""
    if instruction.opcode != "custom-call":
        return False
    called = target(instruction)
    return called == "tpu_custom_call" or called.startswith(_CUDNN_ATTENTION)


def kernel_name(instruction: Instruction) -> str:
    """The kernel's own name, without the number that makes the call's unique."""
    called = target(instruction)
    if called.startswith(_CUDNN_ATTENTION):
        return called.lstrip("_")
    return re.sub(r"(\.\d+|\.clone)+$", "", instruction.name)


def kernel_flops(computation: Computation, call: Instruction) -> float:
    """FLOPs of one launch.

    Raises:
        MalformedText: If an attention kernel has not the operands of one.
    """
    name = kernel_name(call)
    if target(call).startswith(_CUDNN_ATTENTION):
        return _cudnn_flops(computation, call)
    for pattern, matmuls in _SPLASH_MATMULS:
        if pattern.match(name):
            queries, keys = _queries_and_keys(computation, call)
            # Fused, it returns the gradient of the queries too, in parts.
            gradients = [one for one in call.arrays if len(one.dims) >= len(queries.dims)]
            matmuls = _FUSED_BACKWARD if matmuls == 4 and len(gradients) == 3 else matmuls
            return 2.0 * matmuls * _causal_scores(call, queries, keys)
    stated = _COST_ESTIMATE.search(call.attributes)
    return float(stated[1]) if stated else 0.0


def _cudnn_flops(computation: Computation, call: Instruction) -> float:
    shape = _SCORES_SHAPE.search(call.attributes)
    sizes = [int(size) for size in re.findall(r"\d+", shape[1])] if shape else []
    if len(sizes) != 4:
        raise MalformedText(call.line, f"%{call.name} does not state the shape of its scores.")
    rows, heads, length, keys_length = sizes
    head_dim = math.prod(computation.operand(call).arrays[0].dims) / (rows * heads * length)
    keys_seen = (keys_length + 1) / 2 if "CAUSAL" in call.attributes else keys_length
    matmuls = _FUSED_BACKWARD if "Backward" in target(call) else 2
    return 2.0 * matmuls * rows * heads * length * keys_seen * head_dim


def _queries_and_keys(computation: Computation, call: Instruction) -> list[Array]:
    arrays = computation.operand_arrays(call)
    floats = [one for one in arrays if one.dtype in _FLOATS and len(one.dims) >= 3]
    if len(floats) < 3:
        raise MalformedText(call.line, f"%{call.name} lacks queries, keys and values.")
    return floats[:2]


def _causal_scores(call: Instruction, queries: Array, keys: Array) -> float:
    """Scores below the diagonal of all heads and rows, times the size of a head.

    Where the queries are a part of the row, the part is taken to see as many keys as the average
    one does.
    """
    length = _row_length(call, "q", queries)
    keys_length = _row_length(call, "k", keys)
    keys_seen = (keys_length + 1) / 2 if keys_length >= length else keys_length
    return math.prod(queries.dims) * keys_seen


def _row_length(call: Instruction, name: str, array: Array) -> int:
    seq_minor = f'\\"{name}_layout\\": 2' in call.attributes
    return array.dims[-1 if seq_minor else -2]


_FLOATS = ("bf16", "f16", "f32", "f8e4m3fn", "f8e5m2")
