"""How long a step will take, predicted from its compiled program. docs/step_time.md has the fit.

A prediction, never a measurement: the compiler's own estimate of the cycles, kernels at a share
of the peak, and communication from its bytes and the links that it crosses. Two numbers are
fitted to published runs: how much longer cycles take than estimated, and the share of the peak
that attention kernels reach.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from llama_jax.aot.collectives import Collective
from llama_jax.aot.program import Program
from llama_jax.hardware import GPUS_A_NODE, Pod


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a program was compiled for.

    Attributes:
        pod: One slice, or the GPUs of all nodes.
        num_slices: How many of them.
        mesh_shape: Devices along each mesh axis, in the order in which devices were laid out.
    """

    pod: Pod
    num_slices: int
    mesh_shape: Mapping[str, int]

    @property
    def num_chips(self) -> int:
        """Over all slices."""
        return self.pod.count * self.num_slices

    @property
    def devices_per_chip(self) -> float:
        """JAX devices that one chip shows to the program."""
        return math.prod(self.mesh_shape.values()) / self.num_chips


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What is fitted.

    Attributes:
        cycles: Seconds taken over seconds estimated, of what the compiler estimates.
        kernels: Share of the peak at which attention kernels compute.
    """

    cycles: float
    kernels: float


CALIBRATED = Calibration(cycles=1.02, kernels=0.33)
# Where the compiler estimates no cycles (GPUs): share of the peak at which matmuls run. Assumed.
_MATMULS = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Predicted seconds of one step.

    Attributes:
        compute: Everything that the compiler's cycles stand for: matmuls, norms, the update.
        kernels: Attention.
        exposed: Communication beside which the device does nothing.
        late: What communication takes longer than the work that was scheduled beside it.
        links: All communication, hidden or not; the step cannot be shorter.
    """

    compute: float
    kernels: float
    exposed: float
    late: float
    links: float

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return max(self.compute + self.kernels + self.waiting, self.links)

    @property
    def waiting(self) -> float:
        """For other devices."""
        return self.exposed + self.late


def predict_step_time(
    program: Program, machine: Machine, calibration: Calibration | None = None
) -> StepTime:
    """Predicted time of one step on a machine, from the program of one of its devices."""
    fitted = calibration or CALIBRATED
    peak = machine.pod.chip.bf16_flops / machine.devices_per_chip
    bandwidth = machine.pod.chip.hbm_bytes_per_second / machine.devices_per_chip
    exposed = late = links = 0.0
    for collective in program.collectives:
        seconds = collective_seconds(collective, machine)
        links += seconds
        if collective.exposure == "exposed":
            exposed += seconds
        else:
            beside = collective.overlap
            work = _compute_seconds(beside.cycles, beside.matmul_flops, beside.hbm_bytes, machine)
            work = fitted.cycles * work + beside.kernel_flops / (fitted.kernels * peak)
            late += max(0.0, seconds - work)
    return StepTime(
        compute=fitted.cycles
        * _compute_seconds(program.cycles, program.matmul_flops, program.hbm_bytes, machine),
        kernels=sum(
            max(kernel.flops / (fitted.kernels * peak), kernel.bytes / bandwidth)
            for kernel in program.kernels
        ),
        exposed=exposed,
        late=late,
        links=links,
    )


def collective_seconds(collective: Collective, machine: Machine) -> float:
    """Time of all executions of a collective, alone on the links, at their published rate.

    Rings along all sides of the torus that the group spans carry a part each. Between slices and
    between nodes the network carries it.

    Source: "How to Scale Your Model" (jax-ml.github.io/scaling-book), chapter "Sharding".
    """
    sent = collective.sent_bytes
    if _leaves_slice(collective.axes, machine):
        return sent * machine.devices_per_chip / machine.pod.chip.dcn_bytes_per_second
    if collective.kind in ("all-to-all", "ragged-all-to-all") and machine.pod.sides:
        sent *= max(1.0, collective.group_size / 4)  # what goes further passes others on the way
    rings = 0.5 if collective.kind == "collective-permute" else _rings(collective, machine)
    per_device = 2 * machine.pod.chip.link_bytes_per_second / machine.devices_per_chip
    return sent / (rings * per_device)


def _compute_seconds(cycles: int, matmul_flops: float, hbm_bytes: float, machine: Machine) -> float:
    chip = machine.pod.chip
    if chip.clock_hz:
        return cycles / chip.clock_hz
    return max(matmul_flops / (_MATMULS * chip.bf16_flops), hbm_bytes / chip.hbm_bytes_per_second)


def _rings(collective: Collective, machine: Machine) -> float:
    """Rings of links that a group inside a slice exchanges over; a line is half a ring."""
    sides = zip(machine.pod.sides, machine.pod.rings, strict=True)
    chips = collective.group_size / machine.devices_per_chip
    rings, reached = 0.0, 1
    for side, closed in sorted(sides, reverse=True):
        if side > 1 and reached < chips:
            rings += 1.0 if closed else 0.5
            reached *= side
    # Inside a chip, and between GPUs of a node, which one switch joins.
    return rings or 0.5


def _leaves_slice(axes: Sequence[str], machine: Machine) -> bool:
    """Whether a group along these axes holds devices of several slices, or of several nodes."""
    names, sizes = list(machine.mesh_shape), list(machine.mesh_shape.values())
    together = math.prod(sizes) // machine.num_slices if machine.pod.sides else GPUS_A_NODE
    # Devices are laid out slice by slice, the last axis closest together.
    spans = (math.prod(sizes[names.index(axis) :]) for axis in axes if machine.mesh_shape[axis] > 1)
    return max(spans, default=1) > together
