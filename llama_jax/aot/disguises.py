"""Collectives that do the work of another one, told by what they read and by who reads them."""

import dataclasses

from llama_jax.aot.hlo import Computation, Instruction, Module

_MAX_STEPS = 64  # to where a value comes from
_MAX_DEPTH = 16  # of fusions in fusions
_SAME_ELEMENTS = (
    "bitcast", "convert", "copy", "copy-done", "copy-start", "reshape", "transpose",
    "reduce-precision",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """An instruction, and the fusion through which its computation was entered."""

    computation: Computation
    instruction: Instruction
    fusion: "_Place | None" = None

    def operand(self, index: int) -> "_Place":
        operand = self.computation.operand(self.instruction, index)
        return _Place(self.computation, operand, self.fusion)


def is_zero_padded(module: Module, computation: Computation, name: str) -> bool:
    """Whether a value is zero but for a part that was written into it."""
    update = _origin(module, _Place(computation, computation.instructions[name]))
    if update.instruction.opcode != "dynamic-update-slice":
        return False
    broadcast = _origin(module, update.operand(0))
    if broadcast.instruction.opcode != "broadcast":
        return False
    zero = _origin(module, broadcast.operand(0)).instruction
    return zero.opcode == "constant" and zero.literal in ("0", "-0", "0.0", "false")


def is_sliced(module: Module, computation: Computation, name: str, depth: int = 0) -> bool:
    """Whether all that is read of a value are dynamic slices."""
    users = computation.users[name]
    return bool(users) and all(
        _slices(module, computation, user, name, depth + 1) for user in users
    )


def _slices(
    module: Module, computation: Computation, user: Instruction, name: str, depth: int
) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if user.opcode == "dynamic-slice":
        return user.operands[0] == name
    if user.opcode in _SAME_ELEMENTS or user.opcode == "get-tuple-element":
        return user is not computation.root and is_sliced(module, computation, user.name, depth)
    if user.opcode != "fusion":
        return False
    (inside,) = module.called(user, "calls")
    parameter = inside.parameters.get(user.operands.index(name))
    return parameter is not None and is_sliced(module, inside, parameter.name, depth)


def _origin(module: Module, place: _Place) -> _Place:
    """Where a value was made, past what leaves its elements as they are."""
    for _ in range(_MAX_STEPS):
        one = place.instruction
        if one.opcode in _SAME_ELEMENTS:
            place = place.operand(0)
        elif one.opcode == "fusion":
            (inside,) = module.called(one, "calls")
            place = _Place(inside, inside.root, place)
        elif one.opcode == "parameter" and place.fusion:
            place = place.fusion.operand(one.index)
        elif one.opcode == "get-tuple-element":
            source = place.operand(0)
            if source.instruction.opcode == "fusion":
                (inside,) = module.called(source.instruction, "calls")
                source = _Place(inside, inside.root, source)
            if source.instruction.opcode != "tuple":
                return place
            place = source.operand(one.index)
        else:
            return place
    return place
