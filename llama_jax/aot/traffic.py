"""Bytes that an instruction moves to and from HBM: what it reads of its operands, and writes."""

from llama_jax.aot.hlo import ASYNCHRONOUS_CALLS, Computation, Instruction, Module
from llama_jax.aot.kernels import target

HBM = 0
# They name what is there, or run other computations, which count for themselves.
_MOVES_NOTHING = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional",
    "call", *ASYNCHRONOUS_CALLS, "partition-id", "replica-id", "after-all", "add-dependency",
    "optimization-barrier", "domain",
}  # fmt: skip
_STARTS = ("slice-start", "dynamic-slice-start", "dynamic-update-slice-start", "fusion-start")
_SAME_ELEMENTS = ("bitcast", "reshape", "convert", "copy", "transpose")
_SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(
    module: Module, computation: Computation, instruction: Instruction, ignored: frozenset[str]
) -> int:
    """Bytes of one execution, the standard estimate of a roofline.

    An operand of which only a slice is read counts with the slice, a result of which only a slice
    is written with the slice. What lies in on-chip memory counts nothing.

    Args:
        module: The program.
        computation: That holds the instruction, and is not the inside of a fusion.
        instruction: Of which.
        ignored: Opcodes that count nothing: those of collectives.
    """
    opcode = instruction.opcode
    if opcode in _MOVES_NOTHING or opcode in ignored or opcode.endswith(("-done", "-update")):
        return 0
    traffic = _Traffic(module, ignored)
    if opcode == "fusion":
        return traffic.of_fusion(computation, instruction)
    if opcode == "custom-call" and not instruction.operands:
        return 0  # an allocation
    if opcode in _STARTS:
        return _started(computation, instruction)
    if opcode == "copy-start" or opcode in _SAME_ELEMENTS:
        moved = (*instruction.arrays[:1], *computation.operand_arrays(instruction))
        return sum(array.bytes for array in moved if array.space == HBM)
    read = sum(
        traffic.read_by(computation, instruction, operand)
        for operand in dict.fromkeys(instruction.operands)
    )
    return read + traffic.written(computation, instruction.name)


def _started(computation: Computation, start: Instruction) -> int:
    """Of a slice that is read or written beside other work, between two memories."""
    operands = computation.operand_arrays(start)
    # The result stands behind the operands.
    whole, result = operands[0], start.arrays[len(operands)]
    if whole.dims != result.dims:
        return result.bytes * ((whole.space == HBM) + (result.space == HBM))
    update = operands[1]
    return update.bytes * ((update.space == HBM) + (result.space == HBM))


class _Traffic:
    def __init__(self, module: Module, ignored: frozenset[str]):
        self.module, self.ignored = module, ignored

    def of_fusion(self, computation: Computation, fusion: Instruction) -> int:
        (inside,) = self.module.called(fusion, "calls")
        parameters = inside.parameters
        read = 0
        for number, name in enumerate(fusion.operands):
            arrays = computation.instructions[name].arrays
            whole = sum(array.bytes for array in arrays if array.space == HBM)
            if whole and number in parameters:
                read += min(whole, self.read(inside, parameters[number].name))
        # The result's memory is told by the fusion's own type.
        if all(array.space != HBM for array in fusion.arrays):
            return read
        return read + self.written(inside, inside.root.name)

    def read(self, computation: Computation, name: str) -> int:
        """Bytes of a value that its users read, each byte once."""
        whole = computation.instructions[name].bytes
        total = 0
        for user in computation.users[name]:
            total += self.read_by(computation, user, name)
            if total >= whole:
                return whole
        return total

    def read_by(self, computation: Computation, user: Instruction, name: str) -> int:
        operand = computation.instructions[name]
        whole = sum(array.bytes for array in operand.arrays if array.space == HBM)
        first_alone = user.operands.index(name) == 0 and user.operands.count(name) == 1
        if user.opcode == "tuple" or self._is_ignored(user):
            return 0
        if user.opcode in _SLICES and first_alone:
            return min(whole, user.bytes)
        if user.opcode == "dynamic-update-slice" and first_alone:
            return 0  # written in place
        if user.opcode in _SAME_ELEMENTS and user is not computation.root and user.bytes:
            return min(whole, self.read(computation, user.name) * operand.bytes // user.bytes)
        if user.opcode == "fusion":
            (inside,) = self.module.called(user, "calls")
            parameter = inside.parameters.get(user.operands.index(name))
            return min(whole, self.read(inside, parameter.name)) if parameter else 0
        return whole

    def written(self, computation: Computation, name: str) -> int:
        instruction = computation.instructions[name]
        opcode = instruction.opcode
        whole = sum(array.bytes for array in instruction.arrays if array.space == HBM)
        if opcode == "parameter" or self._is_ignored(instruction):
            return 0
        if opcode == "tuple":
            parts = dict.fromkeys(instruction.operands)
            return sum(self.written(computation, part) for part in parts)
        if opcode == "dynamic-update-slice":
            update = computation.operand(instruction, 1)
            return min(whole, update.bytes)
        if opcode == "bitcast":
            return min(whole, self.written(computation, instruction.operands[0]))
        if opcode == "fusion":
            (inside,) = self.module.called(instruction, "calls")
            return min(whole, self.written(inside, inside.root.name))
        return whole

    def _is_ignored(self, instruction: Instruction) -> bool:
        if instruction.opcode == "custom-call":
            return target(instruction).startswith("AsyncCollective")
        return instruction.opcode in self.ignored
