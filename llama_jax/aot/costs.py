"""What each computation of a compiled program costs, loops and branches included."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

from llama_jax.aot.hlo import (
    ASYNCHRONOUS_CALLS,
    Computation,
    Instruction,
    MalformedText,
    Module,
    reading,
)
from llama_jax.aot.kernels import is_kernel, kernel_flops, target
from llama_jax.aot.loops import counted
from llama_jax.aot.traffic import hbm_bytes

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
COLLECTIVE_OPCODES = frozenset(
    kind + part for kind in COLLECTIVES for part in ("", "-start", "-done")
)
NOT_MEMORY_TRAFFIC = COLLECTIVE_OPCODES | {"send", "send-done", "recv", "recv-done"}
# They cost what the computations cost that they run.
RUN_OTHERS = ("while", "conditional", "call")


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Of one execution, or of several.

    Attributes:
        cycles: That the compiler estimates, without kernels and collectives.
        matmul_flops: Of dots and convolutions.
        kernel_flops: Of kernels.
        hbm_bytes: Of everything but kernels and collectives.
    """

    cycles: int = 0
    matmul_flops: float = 0.0
    kernel_flops: float = 0.0
    hbm_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.cycles + other.cycles,
            self.matmul_flops + other.matmul_flops,
            self.kernel_flops + other.kernel_flops,
            self.hbm_bytes + other.hbm_bytes,
        )

    def times(self, count: int) -> "Cost":
        """Of `count` executions."""
        return Cost(
            self.cycles * count,
            self.matmul_flops * count,
            self.kernel_flops * count,
            self.hbm_bytes * count,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Costs:
    """By the name of the computation: of all of it, and of each instruction in turn."""

    totals: Mapping[str, Cost]
    steps: Mapping[str, tuple[Cost, ...]]


def computation_costs(module: Module, trips: Mapping[str, int | None]) -> Costs:
    """Costs of one execution of each computation.

    Args:
        module: The program.
        trips: Iterations of each loop by the name of its body; None counts as one.
    """
    totals: dict[str, Cost] = {}
    steps: dict[str, tuple[Cost, ...]] = {}
    for computation in module.computations.values():
        costs: list[Cost] = []
        for instruction in computation:
            with reading(instruction):
                costs.append(_cost(module, computation, instruction, totals, trips))
        steps[computation.name] = tuple(costs)
        totals[computation.name] = functools.reduce(Cost.__add__, costs, Cost())
    return Costs(totals, steps)


def branch_taken(
    module: Module, conditional: Instruction, totals: Mapping[str, Cost]
) -> Computation:
    """The branch that costs most: which one will run, the text does not tell."""
    branches = module.called(
        conditional, "branch_computations", "true_computation", "false_computation"
    )
    return max(branches, key=lambda one: dataclasses.astuple(totals[one.name]))


def _cost(
    module: Module,
    computation: Computation,
    instruction: Instruction,
    totals: Mapping[str, Cost],
    trips: Mapping[str, int | None],
) -> Cost:
    opcode = instruction.opcode
    if opcode in COLLECTIVE_OPCODES:
        return Cost()
    if opcode == "while":
        (body,) = module.called(instruction, "body")
        return totals[body.name].times(counted(trips[body.name]))
    if opcode == "conditional":
        return totals[branch_taken(module, instruction, totals).name]
    if opcode == "call" or opcode in ASYNCHRONOUS_CALLS:
        called = (totals[one.name] for one in module.called(instruction))
        total = functools.reduce(Cost.__add__, called, Cost())
        # Cycles of another core, which works beside this one.
        return total if opcode == "call" else dataclasses.replace(total, cycles=0)
    cycles = instruction.cycles
    matmul_flops = kernel = 0.0
    if opcode == "fusion":
        (inside,) = module.called(instruction, "calls")
        inner = totals[inside.name]
        # The fusion's estimate is of all that is in it.
        cycles = inner.cycles if cycles is None else cycles
        matmul_flops, kernel = inner.matmul_flops, inner.kernel_flops
    elif opcode == "dot":
        matmul_flops = dot_flops(computation, instruction)
    elif opcode == "convolution":
        matmul_flops = convolution_flops(computation, instruction)
    elif opcode == "custom-call" and target(instruction).startswith("__cublas$"):
        matmul_flops = cublas_flops(computation, instruction)
    elif is_kernel(instruction):
        return Cost(kernel_flops=kernel_flops(computation, instruction))
    bytes_moved = hbm_bytes(module, computation, instruction, NOT_MEMORY_TRAFFIC)
    return Cost(cycles or 0, matmul_flops, kernel, bytes_moved)


def dot_flops(computation: Computation, dot: Instruction) -> float:
    """Two for each multiply-add of a dot."""
    return _contraction_flops(computation, dot, dot.attribute("lhs_contracting_dims"))


def cublas_flops(computation: Computation, call: Instruction) -> float:
    """Two for each multiply-add of a matmul of a GPU's library."""
    stated = re.search(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]', call.attributes)
    return _contraction_flops(computation, call, stated[1] if stated else "")


def _contraction_flops(computation: Computation, matmul: Instruction, contracted: str) -> float:
    left = computation.operand(matmul).arrays[0].dims
    sizes = [left[int(axis)] for axis in re.findall(r"\d+", contracted)]
    return 2.0 * math.prod(matmul.arrays[0].dims) * math.prod(sizes)


def convolution_flops(computation: Computation, convolution: Instruction) -> float:
    """Two for each multiply-add of a convolution, the way in which TPUs write matmuls.

    Multiplications with padding do not count: a batch axis becomes a window that slides over
    padding, and meets one element at each place.

    Raises:
        ValueError: If the dimension labels are no such.
    """
    labels = re.match(r"(\w+)_(\w+)->(\w+)", convolution.attribute("dim_labels"))
    left = computation.operand(convolution, 0).arrays[0].dims
    right = computation.operand(convolution, 1).arrays[0].dims
    out = convolution.arrays[0].dims
    if labels is None or [len(part) for part in labels.groups()] != [
        len(left),
        len(right),
        len(out),
    ]:
        raise MalformedText(
            convolution.line, f"dim_labels do not fit the operands of %{convolution.name}."
        )
    in_axes, kernel_axes, out_axes = labels.groups()
    window = _window(convolution.attribute("window"))
    places = 1
    for axis in (label for label in in_axes if label.isdecimal()):
        number = int(axis)
        sizes = (left[in_axes.index(axis)], right[kernel_axes.index(axis)])
        places *= _real_places(*sizes, out[out_axes.index(axis)], *window.get(number, _PLAIN))
    batch_groups = int(convolution.attribute("batch_group_count") or 1)
    batch, features = out[out_axes.index("b")], out[out_axes.index("f")]
    return 2.0 * places * batch * features * right[kernel_axes.index("i")] / batch_groups


# Stride, padding before, dilation of the input and of the kernel.
_PLAIN = (1, 0, 1, 1)


def _window(text: str) -> dict[int, tuple[int, int, int, int]]:
    """Reads `{size=1x8 pad=0_0x7_7 rhs_reversal=0x1}`, by spatial axis."""
    fields = dict(part.split("=", 1) for part in text.strip("{}").split() if "=" in part)
    axes = len(fields.get("size", "").split("x"))

    def sizes(name: str, plain: str) -> list[int]:
        parts = fields[name].split("x") if name in fields else [plain] * axes
        return [int(part.split("_")[0]) for part in parts]

    columns = (
        sizes("stride", "1"),
        sizes("pad", "0_0"),
        sizes("lhs_dilate", "1"),
        sizes("rhs_dilate", "1"),
    )
    return dict(enumerate(zip(*columns, strict=True)))


@functools.cache
def _real_places(
    size: int, window: int, out: int, stride: int, pad: int, dilation: int, window_dilation: int
) -> int:
    """Pairs of an output place and a window place that meet an element, not padding."""
    count = 0
    for place in range(window):
        shift = place * window_dilation - pad
        if dilation == 1:
            # 0 <= out_place * stride + shift < size
            first = max(0, -(shift // stride))
            last = min(out - 1, (size - 1 - shift) // stride)
            count += max(0, last - first + 1)
        else:
            met = (out_place * stride + shift for out_place in range(out))
            count += sum(at % dilation == 0 and 0 <= at // dilation < size for at in met)
    return count
