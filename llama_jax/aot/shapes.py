"""Shapes of a compiled program that tell a fault: its matmuls and its largest results."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from llama_jax.aot.costs import convolution_flops
from llama_jax.aot.hlo import ASYNCHRONOUS_CALLS, Array, Computation, Instruction, Module
from llama_jax.aot.transfers import HOST

_MOST = 64  # of the largest results
_MAKES_NOTHING = (
    "parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
    "optimization-barrier",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Matmul:
    """One convolution, the way in which TPUs write matmuls, with all its executions of a step.

    Attributes:
        contracted: Elements of each sum.
        features: Of the output.
        rows: Of the output, all else.
        flops: Of all executions.
        where: In the traced function.
    """

    contracted: int
    features: int
    rows: int
    flops: float
    where: str

    def padded(self, unit: int) -> float:
        """FLOPs on matrix units that are `unit` wide, where the rest of a tile is idle."""
        wide = (_up(size, unit) / size for size in (self.contracted, self.features))
        return self.flops * math.prod(wide) * _up(self.rows, _SUBLANES) / self.rows


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What an instruction of the schedule leaves in a device's memory, on the chip or off.

    Attributes:
        array: Its shape.
        name: Of the instruction, to be found in the text.
        where: In the traced function.
    """

    array: Array
    name: str
    where: str


_SUBLANES = 8


def matmuls_of(module: Module, counts: Mapping[str, int]) -> Iterator[Matmul]:
    """All matmuls, insides of fusions included.

    Args:
        module: The program.
        counts: Executions of each scheduled computation.
    """
    for name, count in counts.items():
        for instruction in module.computations[name]:
            for inside, matmul in _run_by(module, module.computations[name], instruction):
                yield _matmul(inside, matmul, count)


def largest_results(module: Module, counts: Mapping[str, int]) -> tuple[Result, ...]:
    """Results of the schedule, the largest first, one of each shape; what the host holds is not."""
    found: dict[tuple[str, tuple[int, ...]], Result] = {}
    for name in counts:
        for one in module.computations[name]:
            if one.opcode in _MAKES_NOTHING or one.opcode.endswith(("-start", "-update")):
                continue
            for array in one.arrays:
                if array.space != HOST:
                    shape = (array.dtype, array.dims)
                    found.setdefault(shape, Result(array, one.name, one.op_name))
    return tuple(sorted(found.values(), key=lambda one: -one.array.bytes)[:_MOST])


def _run_by(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    if instruction.opcode == "convolution":
        yield computation, instruction
    elif instruction.opcode in ("fusion", *ASYNCHRONOUS_CALLS):
        for inside in module.called(instruction):
            for inner in inside:
                yield from _run_by(module, inside, inner)


def _matmul(computation: Computation, convolution: Instruction, count: int) -> Matmul:
    kernel = computation.operand(convolution, 1).arrays[0].dims
    labels = convolution.attribute("dim_labels").partition("_")[2].partition("->")[0]
    inputs, features = kernel[labels.index("i")], kernel[labels.index("o")]
    # Heads can be a window that slides along sums or along features; it fills tiles either way.
    window = math.prod(kernel) // (inputs * features)
    return Matmul(
        contracted=inputs * window,
        features=features * window,
        rows=math.prod(convolution.arrays[0].dims) // features,
        flops=convolution_flops(computation, convolution) * count,
        where=convolution.op_name,
    )


def _up(size: int, unit: int) -> int:
    return math.ceil(size / unit) * unit
