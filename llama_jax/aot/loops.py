"""How often each loop of a compiled program runs, read from its counter."""

import dataclasses
import re
from collections.abc import Mapping

from llama_jax.aot.hlo import Computation, Instruction, Module, reading

_MAX_DEPTH = 64  # of what a counter is computed from; a real one takes five steps at most
_SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_MIRRORED = {"GT": "LT", "GE": "LE"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Value:
    """An integer, or an element of the loop's state plus an integer."""

    element: int | None
    offset: int


def trip_counts(module: Module) -> dict[str, int | None]:
    """Iterations of each loop, by the name of its body; None where the text does not tell.

    A loop is counted from its counter: where it starts, by how much an iteration moves it, and
    what the condition compares it with. The constant of the condition alone would not do: XLA
    unrolls windowed einsums, and leaves their bound as it was.
    """
    counts: dict[str, int | None] = {}
    constants: dict[str, dict[int, int]] = {}
    # Callers stand after what they call, and know what a loop inside a loop starts from.
    for computation in reversed(module.computations.values()):
        for instruction in computation:
            if instruction.opcode != "while":
                continue
            known = constants.get(computation.name, {})
            with reading(instruction):
                loop = _Loop(module, computation, instruction, known)
                trips, body = loop.trip_count(), loop.body.name
                # Two loops of one body that differ are told by neither.
                counts[body] = trips if counts.get(body, trips) == trips else None
                constants[body] = dict(
                    loop.constants().items() & constants.get(body, loop.constants()).items()
                )
    return counts


def counted(trips: int | None) -> int:
    """What a number of iterations counts as: one where the text does not tell it."""
    return 1 if trips is None else trips


class _Loop:
    def __init__(
        self, module: Module, caller: Computation, loop: Instruction, known: Mapping[int, int]
    ):
        """Reads one `while`; `known` holds what never changes of the loop around it."""
        (self.condition,) = module.called(loop, "condition")
        (self.body,) = module.called(loop, "body")
        self.module, self.caller, self.loop, self.known = module, caller, loop, known
        self.inside = _Scope(module, self.body)

    def trip_count(self) -> int | None:
        if stated := _KNOWN.search(self.loop.attributes):
            return int(stated[1])
        comparison = _comparison(self.module, self.condition)
        if comparison is None:
            return None
        direction, *sides = comparison
        paths = [self._path(side) for side in sides]
        if None in paths:
            return None
        (left, left_step), (right, right_step) = paths  # type: ignore[misc]
        if direction in _MIRRORED:
            left, left_step, right, right_step = right, right_step, left, left_step
            direction = _MIRRORED[direction]
        return _iterations(direction, right - left, left_step - right_step)

    def constants(self) -> dict[int, int]:
        """Elements of the state that keep a value that is known."""
        starts = {
            element: self._start(element)
            for element in range(len(self.body.root.operands))
            if self._step(element) == 0
        }
        return {element: start for element, start in starts.items() if start is not None}

    def _path(self, value: _Value | None) -> tuple[int, int] | None:
        """Where a side of the comparison starts, and how far an iteration moves it."""
        if value is None:
            return None
        if value.element is None:
            return value.offset, 0
        start, step = self._start(value.element), self._step(value.element)
        return None if start is None or step is None else (start + value.offset, step)

    def _step(self, element: int) -> int | None:
        if self.body.root.opcode != "tuple" or element >= len(self.body.root.operands):
            return None
        after = self.inside.value(self.body.root.operands[element])
        return after.offset if after is not None and after.element == element else None

    def _start(self, element: int) -> int | None:
        state = self.caller.operand(self.loop)
        value = None
        if state.opcode == "parameter":
            value = _Value(element, 0)
        elif state.opcode == "tuple" and element < len(state.operands):
            value = _Scope(self.module, self.caller).value(state.operands[element])
        if value is None or value.element is None:
            return value.offset if value else None
        outer = self.known.get(value.element)
        return None if outer is None else outer + value.offset


class _Scope:
    """What the integers of a computation are, given its arguments."""

    def __init__(
        self,
        module: Module,
        computation: Computation,
        arguments: Mapping[int, _Value | None] | None = None,
        depth: int = 0,
    ):
        """Without `arguments`, the one parameter is the state of a loop."""
        self.module, self.computation, self.arguments = module, computation, arguments
        self.depth = depth
        self.seen: dict[str, _Value | None] = {}

    def value(self, name: str, depth: int = 0) -> _Value | None:
        if name not in self.seen:
            too_deep = max(depth, self.depth) > _MAX_DEPTH
            self.seen[name] = None if too_deep else self._value(name, depth + 1)
        return self.seen[name]

    def _value(self, name: str, depth: int) -> _Value | None:
        instruction = self.computation.instructions[name]
        opcode, operands = instruction.opcode, instruction.operands
        if opcode == "constant":
            integer = re.fullmatch(r"-?\d+", instruction.literal)
            return _Value(None, int(integer[0])) if integer else None
        if opcode == "parameter":
            return self.arguments.get(instruction.index) if self.arguments is not None else None
        if opcode == "get-tuple-element":
            source = self.computation.operand(instruction)
            if source.opcode == "tuple" and instruction.index < len(source.operands):
                return self.value(source.operands[instruction.index], depth)
            state = source.opcode == "parameter" and self.arguments is None
            return _Value(instruction.index, 0) if state else None
        if opcode in _SAME_VALUE and operands:
            return self.value(operands[0], depth)
        if opcode in ("add", "subtract") and len(operands) == 2:
            left, right = (self.value(operand, depth) for operand in operands)
            return _sum(left, right, -1 if opcode == "subtract" else 1)
        if opcode in ("fusion", "call"):
            inner = self.enter(instruction, depth)
            return inner.value(inner.computation.root.name) if inner else None
        return None

    def enter(self, instruction: Instruction, depth: int = 0) -> "_Scope | None":
        called = self.module.called(instruction, "calls", "to_apply")
        if len(called) != 1:
            return None
        arguments = dict(enumerate(self.value(name, depth) for name in instruction.operands))
        return _Scope(self.module, called[0], arguments, self.depth + depth + 1)


def _comparison(
    module: Module, condition: Computation
) -> tuple[str, _Value | None, _Value | None] | None:
    """Direction and sides of what a condition compares."""
    scope = _Scope(module, condition)
    while scope and scope.computation.root.opcode in ("fusion", "call"):
        scope = scope.enter(scope.computation.root)
    if scope is None or scope.computation.root.opcode != "compare":
        return None
    root = scope.computation.root
    left, right = (scope.value(name) for name in root.operands[:2])
    return root.attribute("direction"), left, right


def _sum(left: _Value | None, right: _Value | None, sign: int) -> _Value | None:
    if left is None or right is None:
        return None
    if right.element is None:
        return _Value(left.element, left.offset + sign * right.offset)
    if left.element is None and sign == 1:
        return _Value(right.element, left.offset + right.offset)
    return None


def _iterations(direction: str, distance: int, step: int) -> int | None:
    """How often `step` can be taken while `0 DIRECTION distance` holds."""
    if direction == "NE" and step and distance % step == 0 and distance // step >= 0:
        return distance // step
    if direction not in ("LT", "LE"):
        return None
    reach = distance + (direction == "LE")
    if reach <= 0:
        return 0
    return -(-reach // step) if step > 0 else None
