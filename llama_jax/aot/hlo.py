"""The text of a compiled program, as computations of instructions."""

import contextlib
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

# They run a computation beside what follows them in the schedule, until their end.
ASYNCHRONOUS_CALLS = ("async-start", "call-start")


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """One array of a type.

    Attributes:
        dtype: As XLA writes it, such as "bf16".
        dims: Sizes.
        space: Memory that holds it: 0 is HBM, others are on the chip, or the host's.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        """Size without padding."""
        return math.ceil(math.prod(self.dims) * _bits(self.dtype) / 8)


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: Unique within the computation.
        opcode: Such as "fusion".
        arrays: Of the result, those of nested tuples in a row.
        operands: Names of instructions of the same computation.
        literal: What stands between the parentheses, for constants and parameters.
        attributes: The rest of the line, unread.
        line: In the text, from 1.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str
    line: int

    @property
    def bytes(self) -> int:
        """Size of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def cycles(self) -> int | None:
        """What the compiler estimates for one execution; None where it does not say."""
        found = _CYCLES.search(self.attributes)
        return int(found[1]) if found and found[1] != _NO_ESTIMATE else None

    @property
    def index(self) -> int:
        """Of the element that a get-tuple-element takes, of the argument that a parameter is."""
        if self.opcode == "parameter":
            return int(self.literal)
        return int(self.attribute("index") or 0)

    @property
    def op_name(self) -> str:
        """Where in the traced function this comes from; empty where nothing is recorded."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """An attribute's value up to the comma that ends it, braces and all; "" if absent."""
        found = re.search(rf"\b{name}=((?:\{{[^{{}}]*\}}|[^,{{}}])+)", self.attributes)
        return found[1].strip() if found else ""

    def callees(self, *roles: str) -> tuple[str, ...]:
        """Computations that this one calls as `roles`, such as "body"; in any role by default."""
        # What a kernel is made of can be long, and calls nothing.
        head = self.attributes.partition(", backend_config=")[0]
        return tuple(
            name.strip().lstrip("%")
            for role, one, many in _CALLS.findall(head)
            if not roles or role in roles
            for name in (one or many).split(",")
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Computation:
    """Instructions by name, in the order in which they run.

    Attributes:
        name: Unique within the program.
        instructions: In order.
        root: The one whose result is the computation's.
        users: Instructions that take each one as an operand.
    """

    name: str
    instructions: Mapping[str, Instruction]
    root: Instruction
    users: Mapping[str, Sequence[Instruction]]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def operand(self, instruction: Instruction, index: int = 0) -> Instruction:
        """The instruction that an operand names."""
        return self.instructions[instruction.operands[index]]

    def operand_arrays(self, instruction: Instruction) -> list[Array]:
        """Of all operands in a row."""
        return [array for name in instruction.operands for array in self.instructions[name].arrays]

    @property
    def parameters(self) -> dict[int, Instruction]:
        """By number."""
        return {one.index: one for one in self if one.opcode == "parameter"}


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """A whole program; each computation comes after those that it calls."""

    computations: dict[str, Computation]
    entry: Computation

    def called(self, instruction: Instruction, *roles: str) -> list[Computation]:
        """The computations that an instruction calls in these roles."""
        return [self.computations[name] for name in instruction.callees(*roles)]


class MalformedText(ValueError):  # noqa: N818
    """A text that is no compiled program, or one of a form that is not known; names the line."""

    def __init__(self, line: int, complaint: str):
        super().__init__(f"HLO text, line {line}: {complaint}")


@contextlib.contextmanager
def reading(instruction: Instruction) -> Iterator[None]:
    """Names the line of an instruction whose attributes are not what its opcode asks for.

    Raises:
        MalformedText: In place of what the reading of the attributes stumbled over.
    """
    try:
        yield
    except MalformedText:
        raise
    except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise MalformedText(
            instruction.line, f"{instruction.opcode} %{instruction.name} cannot be read."
        ) from error


def parse_module(text: str) -> Module:
    """Reads what `jax.stages.Compiled.as_text()` gives.

    Raises:
        ValueError: If the text is no such program, naming the line.
    """
    if not text.startswith("HloModule"):
        raise MalformedText(1, "must begin with HloModule.")
    computations: dict[str, Computation] = {}
    entry = None
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if not (line.endswith("{") and (header := _HEADER.match(line))):
            continue
        name = header[2]
        if name in computations:
            raise MalformedText(number, f"computation %{name} is there twice.")
        computation = _parse_computation(name, number, lines, computations)
        computations[name] = computation
        entry = computation if header[1] else entry
    if entry is None:
        raise MalformedText(text.count("\n") + 1, "ends without an ENTRY.")
    return Module(computations, entry)


def _parse_computation(
    name: str,
    start: int,
    lines: Iterator[tuple[int, str]],
    known: Mapping[str, Computation],
) -> Computation:
    instructions: dict[str, Instruction] = {}
    root = None
    for number, statement in _statements(name, start, lines):
        instruction, is_root = _parse_instruction(number, statement)
        for operand in instruction.operands:
            if operand not in instructions:
                raise MalformedText(number, f"%{operand} is used before its line.")
        for callee in instruction.callees():
            if callee not in known:
                raise MalformedText(number, f"%{callee} is called before its lines.")
        if instruction.name in instructions:
            raise MalformedText(number, f"%{instruction.name} is there twice.")
        instructions[instruction.name] = instruction
        root = instruction if is_root else root
    if root is None:
        raise MalformedText(start, f"computation %{name} has no ROOT.")
    users: dict[str, list[Instruction]] = {name: [] for name in instructions}
    for instruction in instructions.values():
        for operand in dict.fromkeys(instruction.operands):
            users[operand].append(instruction)
    return Computation(name, instructions, root, users)


def _statements(
    name: str, start: int, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, str]]:
    """Instructions of a computation; attributes of a kernel go over several lines."""
    begun: list[str] = []
    begun_at = depth = 0
    for number, line in lines:
        if _BEGINS.match(line) or (line.startswith("}") and not line.startswith("}}")):
            if begun:
                yield begun_at, "\n".join(begun)
            if line.startswith("}"):
                return
            begun, begun_at, depth = [], number, 0
        elif line.strip() and depth <= 0:
            raise MalformedText(number, f"no instruction: {line.strip()[:60]!r}.")
        begun.append(line)
        depth += line.count("{") - line.count("}")
    raise MalformedText(start, f"computation %{name} does not end.")


def _parse_instruction(number: int, statement: str) -> tuple[Instruction, bool]:
    head = _INSTRUCTION.match(statement)
    end = _closing(statement, head.end()) if head else -1
    if head is None or end < 0:
        raise MalformedText(number, f"no instruction: {statement.strip()[:60]!r}.")
    inside = statement[head.end() : end]
    instruction = Instruction(
        name=head[2],
        opcode=head[4],
        arrays=_arrays(head[3]),
        operands=tuple(_NAME.findall(inside)),
        literal=inside if head[4] in ("constant", "parameter") else "",
        attributes=statement[end + 1 :],
        line=number,
    )
    if instruction.opcode == "parameter" and not inside.isdecimal():
        raise MalformedText(number, f"parameter({inside[:20]}) has no number.")
    ends = instruction.opcode.endswith(("-done", "-update"))
    if len(instruction.operands) < _LEAST_OPERANDS.get(instruction.opcode, int(ends)):
        raise MalformedText(number, f"{instruction.opcode} lacks operands.")
    for role in _MUST_CALL.get(instruction.opcode, ()):
        if len(instruction.callees(role)) != 1:
            raise MalformedText(number, f"{instruction.opcode} lacks {role}=.")
    if instruction.opcode == "conditional" and not instruction.callees():
        raise MalformedText(number, "conditional lacks branches.")
    return instruction, bool(head[1])


def _closing(text: str, start: int) -> int:
    """Where the parenthesis closes that was opened before `start`; -1 if nowhere."""
    depth = 1
    for found in _PARENTHESIS.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return -1


@functools.lru_cache(maxsize=4096)
def _arrays(text: str) -> tuple[Array, ...]:
    return tuple(
        Array(
            dtype,
            # A bounded dynamic size is written "<=8".
            tuple(int(size.lstrip("<=")) for size in dims.split(",") if size),
            int(space[1]) if (space := _SPACE.search(layout)) else 0,
        )
        for dtype, dims, layout in _ARRAY.findall(text)
    )


@functools.cache
def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    digits = "".join(itertools.takewhile(str.isdigit, dtype.lstrip("abcdefghijklmnopqrstuvwxyz")))
    return int(digits or 0)


_HEADER = re.compile(r"(ENTRY )?%?([^\s(%]+) \(")
_BEGINS = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = ")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\(")
_PARENTHESIS = re.compile(r"[()]")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"([a-z]\w*)\[((?:(?:<=)?\d+,?)*)\](?:\{([^}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NO_ESTIMATE = str(2**63 - 1)  # what a cost model says of SparseCores that it does not know
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(
    r"\b(calls|to_apply|condition|body|true_computation|false_computation|branch_computations"
    r"|called_computations)=(?:%([\w.\-]+)|\{([^}]*)\})"
)
_LEAST_OPERANDS = {
    "dot": 2,
    "convolution": 2,
    "while": 1,
    "get-tuple-element": 1,
    "compare": 2,
    "broadcast": 1,
    "dynamic-update-slice": 2,
}
_MUST_CALL = {"while": ("condition", "body"), "fusion": ("calls",)}
