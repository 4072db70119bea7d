"""What a compiled program sends to the memory of its host and takes back from there."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

from llama_jax.aot.costs import RUN_OTHERS, Cost
from llama_jax.aot.hlo import ASYNCHRONOUS_CALLS, Array, Computation, Instruction
from llama_jax.aot.kernels import target

HOST = 5  # the memory space of XLA that is pinned memory of the host
_MOVES_NOTHING = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "optimization-barrier",
    "add-dependency", "domain", *RUN_OTHERS, *ASYNCHRONOUS_CALLS,
}  # fmt: skip
Direction = Literal["to host", "from host"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """All that one computation sends one way, with all its executions of a step.

    Attributes:
        direction: From the device's side.
        bytes: Of one device, all executions together.
        count: Arrays sent, all executions together.
        exposed: Whether the device waits; else other work is scheduled from start to end.
        overlap: That work, all executions together.
    """

    direction: Direction
    bytes: int
    count: int
    exposed: bool
    overlap: Cost


@dataclasses.dataclass(frozen=True, slots=True)
class _Move:
    direction: Direction
    bytes: int
    start: int
    end: int


def transfers_of(computation: Computation, steps: Sequence[Cost], count: int) -> Iterator[Transfer]:
    """Transfers that a scheduled computation makes itself, not those of loops in it.

    Args:
        computation: Whose instructions run one after another.
        steps: What each of them costs.
        count: Executions of the computation in a step.
    """
    before = list(itertools.accumulate(steps, initial=Cost()))
    moves = list(_moves(computation))
    for direction in ("to host", "from host"):
        same = [one for one in moves if one.direction == direction]
        beside = _beside(same, before)
        exposed = not (beside.cycles or beside.matmul_flops or beside.kernel_flops)
        if same:
            yield Transfer(
                direction=direction,
                bytes=sum(one.bytes for one in same) * count,
                count=len(same) * count,
                exposed=exposed,
                overlap=Cost() if exposed else beside.times(count),
            )


def _beside(moves: Sequence[_Move], before: Sequence[Cost]) -> Cost:
    """Work that is scheduled while at least one of the moves is under way; each counts once."""
    total, reached = Cost(), 0
    for move in sorted(moves, key=lambda one: one.start):
        start = max(move.start, reached)
        if move.end > start:
            total += before[move.end] + before[start].times(-1)
            reached = move.end
    return total


def _moves(computation: Computation) -> Iterator[_Move]:
    ends = {one.operands[0]: at for at, one in enumerate(computation) if _ends(one)}
    for at, one in enumerate(computation):
        if one.opcode in _MOVES_NOTHING or _ends(one) or target(one) == "AllocateBuffer":
            continue
        operands = computation.operand_arrays(one)
        result = _result(one, operands)
        if result is None:
            continue
        if one.opcode.endswith("-start"):
            # One that ends in another iteration is under way until the end of this one.
            start, end = at + 1, ends.get(one.name, len(computation.instructions))
        else:
            start = end = at
        if result.space == HOST:
            sent = sum(array.bytes for array in operands if array.space != HOST and array.dims)
            if sent:
                yield _Move("to host", sent, start, end)
        elif any(array.space == HOST for array in operands):
            yield _Move("from host", result.bytes, start, end)


def _ends(instruction: Instruction) -> bool:
    return instruction.opcode.endswith(("-done", "-update"))


def _result(instruction: Instruction, operands: Sequence[Array]) -> Array | None:
    """The array that an instruction makes; what starts one names its operands before it."""
    if not instruction.opcode.endswith("-start") or instruction.opcode == "copy-start":
        return instruction.arrays[0] if instruction.arrays else None
    return instruction.arrays[len(operands)] if len(instruction.arrays) > len(operands) else None
