"""From a lowered program to a compiled one, its text and its memory."""

import dataclasses
import re
import time
from collections.abc import Mapping

import jax


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MemoryUse:
    """Bytes on one device, as the compiler has laid them out.

    Attributes:
        arguments: State and batch.
        outputs: New state and metrics.
        aliased: Part of the outputs that takes the place of arguments.
        temporaries: Everything else that lives in between.
        code: The program itself.
        peak: Most that is live at one time.
        host: Of the host's memory, that is for this device.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    peak: int
    host: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledProgram:
    """What the compiler made.

    Attributes:
        text: Optimised HLO.
        memory: Per device.
        seconds: That it took.
    """

    text: str
    memory: MemoryUse
    seconds: float


class DoesNotFit(ValueError):  # noqa: N818
    """The program does not fit.

    Attributes:
        needed: Bytes on one device; 0 where the compiler did not say.
        limit: Bytes that there are; 0 where the compiler did not say.
        without_arguments: Whether the compiler stopped at temporaries, before it had counted state
            and batch.
    """

    def __init__(self, message: str, needed: int, limit: int, *, without_arguments: bool = False):
        super().__init__(message)
        self.needed = needed
        self.limit = limit
        self.without_arguments = without_arguments


class TooLargeOnChip(DoesNotFit):
    """A fusion or a kernel needs more of the memory beside the arithmetic (VMEM) than there is."""

    def __init__(self, needed: str, limit: str):
        super().__init__(
            f"a fusion or kernel of the step needs {needed}B of on-chip memory (VMEM), {limit}B "
            "are there. Fewer rows do not help as such; other tiles may (--compute.tiles."
            "keys-at-once 512), another --compute.remat, or weights split over more chips.",
            0,
            0,
        )


class RefusedOption(ValueError):  # noqa: N818
    """The compiler does not take an option."""


class CompilerFault(ValueError):  # noqa: N818
    """The compiler contradicts itself; a run would end there too."""


def compile_program(lowered: jax.stages.Lowered, options: Mapping[str, str]) -> CompiledProgram:
    """Compiles for the devices that the program was lowered for.

    Args:
        lowered: From `jax.jit(...).lower`.
        options: Of XLA and libtpu, beside those that the program brings along.

    Raises:
        DoesNotFit: If the program does not fit the device.
        RefusedOption: If the compiler does not take one of the options.
        CompilerFault: If it fails on what it made itself.
    """
    start = time.monotonic()
    try:
        compiled = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if _REFUSED_OPTION.search(str(error)):
            raise RefusedOption(
                f"--xla: the compiler does not take it: {str(error).splitlines()[0]} "
                "Bools are true or false for TPUs, True or False for GPUs."
            ) from error
        if str(error).startswith("INTERNAL"):
            raise CompilerFault(
                "the compiler fails, by a fault of its own: "
                f"{str(error).splitlines()[0][:300]} Another --compute.remat, or another mesh, may "
                "be spared it."
            ) from error
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _does_not_fit(str(error)) from error
    used = compiled.memory_analysis()
    assert used is not None, "every compiler that we use says so"
    return CompiledProgram(
        text=compiled.as_text() or "",
        memory=MemoryUse(
            arguments=used.argument_size_in_bytes,
            outputs=used.output_size_in_bytes,
            aliased=used.alias_size_in_bytes,
            temporaries=used.temp_size_in_bytes,
            code=used.generated_code_size_in_bytes,
            peak=used.peak_memory_in_bytes,
            host=used.host_argument_size_in_bytes + used.host_temp_size_in_bytes,
        ),
        seconds=time.monotonic() - start,
    )


def check_memory(memory: MemoryUse, limit: float) -> None:
    """Refuses what the compiler let pass: that of GPUs asks nobody how much memory there is.

    Raises:
        DoesNotFit: If the peak is over `limit` bytes.
    """
    if memory.peak > limit:
        raise DoesNotFit("The program's peak is over the device's memory.", memory.peak, int(limit))


_REFUSED_OPTION = re.compile(r"[Nn]o such compile option|While setting option")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


_ON_CHIP = re.compile(r"memory space vmem\. [Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?)")
# The compiler says it in one way where it has laid all out, and in another where temporaries alone
# are too many.
_ALL = re.compile(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?)")
_TEMPORARIES = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")


def _does_not_fit(message: str) -> DoesNotFit:
    """What the compiler says; zeros where it does not say how much."""
    if on_chip := _ON_CHIP.search(message):
        return TooLargeOnChip(*on_chip.groups())
    first = message.splitlines()[0]
    found = _ALL.search(message) or _TEMPORARIES.search(message)
    if found is None:
        return DoesNotFit(first, 0, 0)
    needed, needed_unit, limit, limit_unit = found.groups()
    return DoesNotFit(
        first,
        int(float(needed) * _UNITS[needed_unit]),
        int(float(limit) * _UNITS[limit_unit]),
        without_arguments=found.re is _TEMPORARIES,
    )
