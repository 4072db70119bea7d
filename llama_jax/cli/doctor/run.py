"""From a recipe and a pod to what the compiled step says of itself."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jax.sharding import Mesh

from llama_jax.aot.compile import DoesNotFit, MemoryUse, check_memory, compile_program
from llama_jax.aot.findings import Finding, find_faults
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program, read_program
from llama_jax.aot.reference import Comparison, compare_with_published
from llama_jax.aot.step_time import StepTime, predict_step_time
from llama_jax.aot.topology import devices_of
from llama_jax.cli.doctor.progress import stage
from llama_jax.config import MeshConfig, RunConfig
from llama_jax.flops import count_params, state_bytes
from llama_jax.hardware import Pod
from llama_jax.observe.throughput import Peak, Throughput, ThroughputMeter
from llama_jax.pods import Slices, mesh_over
from llama_jax.sharding import make_mesh, num_shards, use_layout
from llama_jax.train.program import lower_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be compiled.

    Attributes:
        config: Of the run, its batch that of the request.
        machine: That it is compiled for.
        mesh: Of devices that are not here.
        tokens: Of the whole run, as the recipe has it.
    """

    config: RunConfig
    machine: Machine
    mesh: Mesh
    tokens: int

    @property
    def rows_per_chip(self) -> float:
        """Of a batch."""
        return self.config.train.batch_size / self.machine.num_chips

    @property
    def tokens_per_step(self) -> int:
        """Over all chips, padding included."""
        return self.config.train.batch_size * self.config.data.seq_len

    @property
    def state_bytes(self) -> float:
        """Parameters and optimizer state over all chips, one copy: what a checkpoint takes."""
        return state_bytes(count_params(self.config.model), self.config.optimizer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        request: That was compiled.
        program: As read.
        memory: Of one device.
        seconds_before_compiling: From the command to the start of the compilation.
        compile_seconds: That the compiler took.
        step_time: Predicted.
        throughput: Predicted.
        findings: What is wrong with the program, the worst first.
        comparison: With the published model that is nearest, if one is near.
    """

    request: Request
    program: Program
    memory: MemoryUse
    seconds_before_compiling: float
    compile_seconds: float
    step_time: StepTime
    throughput: Throughput
    findings: tuple[Finding, ...]
    comparison: Comparison | None


def plan_request(
    config: RunConfig, pod: Pod, *, num_slices: int = 1, rows_per_chip: float = 0.0
) -> Request:
    """Lays a run over a pod; where its mesh names no split, as `--pod` would.

    Raises:
        ValueError: If the pod is unknown, a library is missing, the mesh does not multiply to its
            devices, or the rows do not make a whole batch.
    """
    tokens = config.tokens_before(config.train.num_steps)
    if rows_per_chip:
        rows = rows_per_chip * pod.count * num_slices
        if rows != round(rows):
            raise ValueError(
                f"--rows-per-chip={rows_per_chip:g} on {pod.count * num_slices} chips makes a "
                f"batch of {rows:g} rows: give a fraction that makes whole rows."
            )
        train = dataclasses.replace(
            config.train, batch_size=round(rows), batch_ramp=(), accumulation_steps=1
        )
        config = dataclasses.replace(config, train=train)
    if num_slices > 1 and config.mesh.replica * config.mesh.stage == 1:
        # Between slices the network is slow: each holds the model whole.
        mesh_config = dataclasses.replace(config.mesh, replica=num_slices)
        config = dataclasses.replace(config, mesh=mesh_config)
    if config.mesh == MeshConfig(replica=num_slices):  # no split is named
        slices = Slices(pod=pod, count=num_slices)
        config = dataclasses.replace(config, mesh=mesh_over(slices))
    mesh = make_mesh(config.mesh, devices_of(pod, num_slices))
    machine = Machine(pod=pod, num_slices=num_slices, mesh_shape=dict(mesh.shape))
    return Request(config=config, machine=machine, mesh=mesh, tokens=tokens)


def examine(
    request: Request,
    *,
    started: float,
    options: Mapping[str, str] = MappingProxyType({}),
    save_hlo: Path | None = None,
) -> Examination:
    """Lowers, compiles and reads the step.

    Args:
        request: From `plan_request`.
        started: `time.monotonic()` when the command began.
        options: Of XLA and libtpu, beside those that the run brings along.
        save_hlo: File for the compiled program's text.

    Raises:
        ValueError: If the mesh cannot split the model or the batch.
        DoesNotFit: If the program does not fit.
    """
    config, machine = request.config, request.machine
    with stage("lowering"):
        lowered = lower_step(config, request.mesh, config.train.batch_size)
    before = time.monotonic() - started
    try:
        with stage("compiling"):
            compiled = compile_program(lowered, options)
    except DoesNotFit as failure:
        if not failure.without_arguments:
            raise
        with use_layout(request.mesh):
            state = request.state_bytes / num_shards("embed") / num_shards("mlp")
        raise DoesNotFit(str(failure), failure.needed + int(state), failure.limit) from failure
    if save_hlo is not None:
        save_hlo.write_text(compiled.text)
    check_memory(compiled.memory, machine.device_memory)
    with stage("reading"):
        program = read_program(compiled.text, machine.mesh_shape)
    step_time = predict_step_time(program, machine)
    return Examination(
        request=request,
        program=program,
        memory=compiled.memory,
        seconds_before_compiling=before,
        compile_seconds=compiled.seconds,
        step_time=step_time,
        throughput=_throughput(request, step_time.seconds),
        findings=find_faults(config, machine, program, compiled.memory),
        comparison=compare_with_published(config.model),
    )


def _throughput(request: Request, seconds: float) -> Throughput:
    chip = request.machine.pod.chip
    peak = Peak(flops_per_second=chip.bf16_flops, dtype="bf16", source=chip.name)
    meter = ThroughputMeter(
        request.config.model, request.config.data.seq_len, peak, request.machine.num_chips
    )
    return meter(request.tokens_per_step, seconds)
