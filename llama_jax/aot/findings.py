"""What is wrong with a compiled step: each fault with its numbers, and what to do about it."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from typing import Literal

from llama_jax.aot.collectives import Collective
from llama_jax.aot.compile import MemoryUse
from llama_jax.aot.hand_count import matmul_flops_of_model
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program
from llama_jax.aot.step_time import StepTime, collective_seconds, predict_step_time
from llama_jax.config import RunConfig
from llama_jax.flops import count_params, state_bytes
from llama_jax.sharding import ShardingRules

Severity = Literal["serious", "costly", "note"]
_RANK: dict[Severity, int] = {"serious": 0, "costly": 1, "note": 2}
_GIB = 1 << 30
_BF16_BYTES = 2
_WORTH_TELLING = 0.02  # of the step's time
_TIGHT, _ROOMY = 0.95, 0.5  # of the memory
_PLANE_AND_LINE = (
    "give mesh.fsdp a plane of the torus and mesh.fsdp_line the line across it, as --pod does"
)
_WIDE_MATRIX_UNITS = ("v6e", "tpu7x")  # 256 x 256; those before had 128 x 128


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        severity: "serious" makes a run several times slower or larger than it need be, "costly"
            takes some per cent, a "note" is worth knowing.
        what: In one line.
        evidence: The numbers that it was read from.
        fix: What to change.
    """

    severity: Severity
    what: str
    evidence: str
    fix: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    config: RunConfig
    machine: Machine
    program: Program
    memory: MemoryUse
    step_time: StepTime

    @property
    def params(self) -> int:
        return count_params(self.config.model).total

    @property
    def state_bytes(self) -> float:
        return state_bytes(count_params(self.config.model), self.config.optimizer)

    @property
    def data_axes(self) -> set[str]:
        """Mesh axes that split the rows and the parameters too."""
        return _mesh_axes("embed") & _mesh_axes("batch")

    @property
    def tensor_shards(self) -> int:
        return self.shards(_mesh_axes("mlp"))

    @property
    def parameter_shards(self) -> int:
        return self.shards(_mesh_axes("embed") | _mesh_axes("mlp"))

    def shards(self, axes: Collection[str]) -> int:
        return math.prod(self.machine.mesh_shape.get(axis, 1) for axis in axes)

    @property
    def gradient_bytes(self) -> float:
        """Of one device's whole gradient in bfloat16, before anything is reduced."""
        return _BF16_BYTES * self.params / self.tensor_shards

    @property
    def device_memory(self) -> float:
        return self.machine.device_memory

    def seconds(self, collectives: list[Collective]) -> float:
        return sum(collective_seconds(one, self.machine) for one in collectives)

    def share(self, seconds: float) -> str:
        return f"{seconds / self.step_time.seconds:.0%} of the step"


def find_faults(
    config: RunConfig, machine: Machine, program: Program, memory: MemoryUse
) -> tuple[Finding, ...]:
    """All faults, the worst first."""
    case = _Case(
        config=config,
        machine=machine,
        program=program,
        memory=memory,
        step_time=predict_step_time(program, machine),
    )
    found = [finding for rule in _RULES for finding in rule(case)]
    return tuple(sorted(found, key=lambda finding: _RANK[finding.severity]))


def _replicated_state(case: _Case) -> Iterator[Finding]:
    even = case.state_bytes / case.parameter_shards
    if case.memory.arguments > 1.2 * even + (64 << 20):
        yield Finding(
            severity="serious",
            what="Parameters or optimizer state are held more than once.",
            evidence=f"{case.memory.arguments / _GIB:,.2f} GiB of arguments on each device; split "
            f"over {case.parameter_shards} devices they would be {even / _GIB:,.2f}",
            fix="look for a parameter without a sharded axis in the mesh's rules",
        )
    devices = math.prod(case.machine.mesh_shape.values())
    if case.parameter_shards < devices and case.memory.arguments > 0.25 * case.device_memory:
        yield Finding(
            severity="note",
            what=f"Each of {devices // case.parameter_shards} groups of devices holds the whole "
            "model.",
            evidence=f"{case.memory.arguments / _GIB:,.2f} GiB of state on each device, "
            f"{case.memory.arguments / case.device_memory:.0%} of its memory",
            fix="mesh.fsdp=-1 with smaller other axes leaves more room for rows",
        )


def _disguised_gathers(case: _Case) -> Iterator[Finding]:
    reduces = [c for c in case.program.collectives if c.stands_for == "all-gather"]
    if reduces:
        seconds = case.seconds(reduces)
        yield Finding(
            severity="serious" if seconds > 0.1 * case.step_time.seconds else "costly",
            what="Gathers are done as all-reduces of buffers that are zero but for one part.",
            evidence=f"{sum(c.bytes for c in reduces) / 1e9:,.1f} GB in "
            f"{sum(c.count for c in reduces):,} launches; {seconds:.2f} s on the links, twice "
            "what an all-gather takes",
            fix=_PLANE_AND_LINE,
        )


def _reduced_gradients(case: _Case) -> Iterator[Finding]:
    reduces = [
        c
        for c in case.program.collectives
        if c.kind == "all-reduce"
        and case.data_axes.intersection(c.axes)
        and c.stands_for != "all-gather"
    ]
    moved = sum(c.bytes for c in reduces)
    if moved < 0.25 * case.gradient_bytes:
        return
    seconds = case.seconds(reduces)
    yield Finding(
        severity="serious" if seconds > 0.2 * case.step_time.seconds else "costly",
        what="Gradients are all-reduced where a reduce-scatter would do.",
        evidence=f"{moved / 1e9:,.1f} GB of all-reduce a step, in "
        f"{sum(c.count for c in reduces):,} launches, for {case.gradient_bytes / 1e9:,.1f} GB of "
        f"gradients; {seconds:.2f} s on the links, {case.share(seconds)}",
        fix=f"a reduce-scatter moves half: {_PLANE_AND_LINE}",
    )


def _exposed(case: _Case) -> Iterator[Finding]:
    for kind in ("all-gather", "reduce-scatter", "all-reduce", "all-to-all"):
        bare = [c for c in case.program.collectives if c.kind == kind and c.exposure == "exposed"]
        seconds = case.seconds(bare)
        if seconds < _WORTH_TELLING * case.step_time.seconds:
            continue
        yield Finding(
            severity="serious" if seconds > 0.2 * case.step_time.seconds else "costly",
            what=f"The chips wait for {kind}s that nothing hides.",
            evidence=f"{sum(c.bytes for c in bare) / 1e9:,.1f} GB in "
            f"{sum(c.count for c in bare):,} launches over "
            f"{', '.join(sorted({axis for c in bare for axis in c.axes}))}; {seconds:.2f} s, "
            f"{case.share(seconds)}",
            fix="more rows a chip give computation to hide behind; or split fewer ways along "
            "that axis",
        )


def _windowed_einsums(case: _Case) -> Iterator[Finding]:
    # A ring of keys and values permutes too, along the axis that splits rows.
    steps = [
        c
        for c in case.program.collectives
        if c.kind == "collective-permute" and not _mesh_axes("seq") & set(c.axes) and c.sent_bytes
    ]
    count, moved = sum(c.count for c in steps), sum(c.bytes for c in steps)
    if count >= case.config.model.num_layers and moved > 0.1 * case.gradient_bytes:
        yield Finding(
            severity="serious",
            what="Matmuls are cut into windows that wait for their neighbours (windowed einsums).",
            evidence=f"{count:,} collective-permutes of {moved / 1e9:,.1f} GB a step",
            fix="compile with xla_jf_spmd_threshold_for_windowed_einsum_mib above the largest "
            "weight",
        )


def _repeated_kernels(case: _Case) -> Iterator[Finding]:
    wanted = case.config.model.num_layers * case.config.train.accumulation_steps
    ours = [kernel for kernel in case.program.kernels if "fwd" in kernel.name]
    library = [
        kernel
        for kernel in case.program.kernels
        if "fmha" in kernel.name and "Backward" not in kernel.name
    ]
    launches = sum(kernel.launches for kernel in (*ours, *library))
    if wanted and launches > wanted:
        yield Finding(
            severity="costly",
            what="The forward attention kernel runs more than once a layer.",
            evidence=f"{launches:,} launches for {wanted:,} layers",
            fix="compute.remat=none, where it fits: JAX gives what cuDNN keeps for the backward "
            "pass no name by which another policy could save it"
            if library
            else "a remat policy that saves the kernel's output and its log-sum-exp "
            "(compute.remat=attention)",
        )


def _copies(case: _Case) -> Iterator[Finding]:
    copies = [one for one in case.program.work if one.opcode == "copy"]
    cycles = sum(one.cost.cycles for one in copies)
    if copies and cycles > _WORTH_TELLING * case.program.cycles:
        worst = max(copies, key=lambda one: one.cost.cycles)
        yield Finding(
            severity="costly",
            what="Arrays are copied to change their layout.",
            evidence=f"{cycles / case.program.cycles:.0%} of the cycles; most in {worst.count:,} x "
            f"{worst.name}, of {worst.where or 'no known origin'}",
            fix="write the einsum around it with its axes in the order of its operands",
        )


def _extra_matmuls(case: _Case) -> Iterator[Finding]:
    devices = math.prod(case.machine.mesh_shape.values())
    model = matmul_flops_of_model(case.config, case.program.kernels) / devices
    ratio = case.program.matmul_flops / model
    if ratio > 1.4:
        yield Finding(
            severity="serious",
            what="Matmuls do more work than recomputation explains.",
            evidence=f"{case.program.matmul_flops:.3g} FLOPs on each device, {ratio:.2f} times "
            "the model's; recomputing every block makes 1.33",
            fix="look for a matmul whose operands are replicated along an axis of the mesh",
        )
    elif ratio > 1 + _WORTH_TELLING:
        yield Finding(
            severity="note",
            what="Matmuls are computed again in the backward pass.",
            evidence=f"{ratio:.2f} times the model's FLOPs under "
            f"compute.remat={case.config.compute.remat}",
            fix="a policy that saves more, where the memory is there",
        )


def _narrow_matmuls(case: _Case) -> Iterator[Finding]:
    model, tensor = case.config.model, case.tensor_shards
    chip = case.machine.pod.chip.name
    if not case.machine.pod.sides:
        return
    unit = 256 if chip in _WIDE_MATRIX_UNITS else 128
    sizes = {
        "model.embed_dim": model.embed_dim,
        "model.mlp_dim": model.mlp_dim // tensor,
        "model.vocab_size": model.vocab_size // tensor,
        "model.num_heads * head_dim": model.num_heads * model.head_dim // tensor,
    }
    for name, size in sizes.items():
        padded = math.ceil(size / unit) * unit
        if padded > 1.01 * size:
            yield Finding(
                severity="note",
                what=f"{name} does not fill the matrix units of {chip}.",
                evidence=f"{size} on each device is computed as {padded}: "
                f"{padded / size - 1:.1%} of padding",
                fix=f"a multiple of {unit * tensor}, or mesh.tensor=1",
            )
    if model.head_dim < 128:
        yield Finding(
            severity="note",
            what="Heads are narrower than the matrix units.",
            evidence=f"model.head_dim={model.head_dim} is computed as 128 inside attention",
            fix="fewer, wider heads, where the shape is yours to choose",
        )


def _memory(case: _Case) -> Iterator[Finding]:
    used = case.memory.peak / case.device_memory
    if used > _TIGHT:
        yield Finding(
            severity="note",
            what="Memory is tight: another version of the compiler may not fit it.",
            evidence=f"{case.memory.peak / _GIB:,.2f} of {case.device_memory / _GIB:,.2f} GiB",
            fix="fewer rows a chip, or a remat policy that saves less",
        )
    elif used < _ROOMY and case.config.compute.remat != "none":
        yield Finding(
            severity="note",
            what="Memory is left that could buy speed.",
            evidence=f"{case.memory.peak / _GIB:,.2f} of {case.device_memory / _GIB:,.2f} GiB "
            f"under compute.remat={case.config.compute.remat}",
            fix="a remat policy that saves more, or more rows a chip; --tune tries them",
        )


def _bound_by_links(case: _Case) -> Iterator[Finding]:
    time = case.step_time
    if time.host == time.seconds:
        return
    waits = time.seconds - time.compute - time.kernels - time.exposed - time.for_host
    if waits > _WORTH_TELLING * time.seconds:
        yield Finding(
            severity="costly",
            what="There is more communication than computation to hide it.",
            evidence=f"{time.links:.2f} s on the links beside {time.compute + time.kernels:.2f} s "
            f"of computing; {waits:.2f} s of them are waited for, {case.share(waits)}",
            fix="more rows a chip, or fewer devices along fsdp and more along replica",
        )


def _bound_by_host(case: _Case) -> Iterator[Finding]:
    time = case.step_time
    waits = max(time.for_host, time.host - time.compute - time.kernels)
    if waits > _WORTH_TELLING * time.seconds:
        moved = sum(one.bytes for one in case.program.transfers)
        yield Finding(
            severity="serious" if waits > 0.2 * time.seconds else "costly",
            what="The chips wait for the memory of the host.",
            evidence=f"{moved / 1e9:,.1f} GB to the host and back; {time.host:.2f} s one way at "
            f"{case.machine.pod.chip.host_bytes_per_second / 1e9:g} GB/s a chip, {waits:.2f} s of "
            f"them waited for, {case.share(waits)}",
            fix="a policy that saves less on the host, or computes it again: compute.remat=qkv or "
            "full",
        )


def _doubts(case: _Case) -> Iterator[Finding]:
    for doubt in case.program.doubts:
        yield Finding(
            severity="note",
            what="A part of the program could not be read.",
            evidence=doubt,
            fix="--save-hlo FILE keeps the text for a look",
        )


def _mesh_axes(logical: str) -> set[str]:
    entry = getattr(ShardingRules(), logical)
    return {entry} if isinstance(entry, str) else set(entry or ())


_RULES: tuple[Callable[[_Case], Iterator[Finding]], ...] = (
    _replicated_state,
    _disguised_gathers,
    _reduced_gradients,
    _exposed,
    _windowed_einsums,
    _repeated_kernels,
    _copies,
    _extra_matmuls,
    _narrow_matmuls,
    _memory,
    _bound_by_links,
    _bound_by_host,
    _doubts,
)
