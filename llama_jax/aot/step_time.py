"""How long a step will take, predicted from its compiled program. docs/step_time.md has the fit.

A prediction, never a measurement: the compiler's own estimate of the cycles, kernels at a share
of the peak, and communication from its bytes and the links that it crosses. Two numbers are
fitted to published runs: how much longer cycles take than estimated, and the share of the peak
that attention kernels reach.
"""

import dataclasses

from llama_jax.aot.collectives import Collective
from llama_jax.aot.costs import Cost
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What is fitted.

    Attributes:
        cycles: Seconds taken over seconds estimated, of what the compiler estimates.
        kernels: Share of the peak at which attention kernels compute.
    """

    cycles: float
    kernels: float


CALIBRATED = Calibration(cycles=1.03, kernels=0.37)
# Where the compiler estimates no cycles (GPUs): share of the peak at which matmuls run. Assumed.
_MATMULS = 0.7
_ALL_TO_ALLS = ("all-to-all", "ragged-all-to-all")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Predicted seconds of one step.

    Attributes:
        compute: Everything that the compiler's cycles stand for: matmuls, norms, the update.
        kernels: Attention.
        exposed: Communication beside which the device does nothing.
        late: What communication takes longer than the work that was scheduled beside it.
        links: All communication, hidden or not; the step cannot be shorter.
        for_host: Waits for the memory of the host.
        host: Use of the link to it, one way, hidden or not; the step cannot be shorter either.
    """

    compute: float
    kernels: float
    exposed: float
    late: float
    links: float
    for_host: float = 0.0
    host: float = 0.0

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        working = self.compute + self.kernels
        return max(working + self.exposed + self.late + self.for_host, self.links, self.host)


def predict_step_time(
    program: Program, machine: Machine, calibration: Calibration | None = None
) -> StepTime:
    """Predicted time of one step on a machine, from the program of one of its devices."""
    fitted = calibration or CALIBRATED
    peak = _peak(machine)
    bandwidth = machine.pod.chip.hbm_bytes_per_second / machine.devices_per_chip
    exposed = late = links = 0.0
    for collective in program.collectives:
        seconds = collective_seconds(collective, machine)
        links += seconds
        if collective.exposure == "exposed":
            exposed += seconds
        else:
            late += max(0.0, seconds - _seconds_beside(collective.overlap, machine, fitted))
    for_host, host = _host_seconds(program, machine, fitted)
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
        for_host=for_host,
        host=host,
    )


def _host_seconds(program: Program, machine: Machine, fitted: Calibration) -> tuple[float, float]:
    """Waits for the host's memory, and how long the busier way of its link is in use."""
    per_device = machine.pod.chip.host_bytes_per_second / machine.devices_per_chip
    waits, ways = 0.0, {"to host": 0.0, "from host": 0.0}
    for transfer in program.transfers:
        seconds = transfer.bytes / per_device
        ways[transfer.direction] += seconds
        waits += max(0.0, seconds - _seconds_beside(transfer.overlap, machine, fitted))
    return waits, max(ways.values())


def _seconds_beside(work: Cost, machine: Machine, fitted: Calibration) -> float:
    """What work takes that is scheduled beside a transfer; nothing where that is exposed."""
    compute = _compute_seconds(work.cycles, work.matmul_flops, work.hbm_bytes, machine)
    return fitted.cycles * compute + work.kernel_flops / (fitted.kernels * _peak(machine))


def _peak(machine: Machine) -> float:
    return machine.pod.chip.bf16_flops / machine.devices_per_chip


def collective_seconds(collective: Collective, machine: Machine) -> float:
    """Time of all executions of a collective, alone on the links, at their published rate.

    Rings along all sides of the torus that the group spans carry a part each. Between slices and
    between nodes the network carries it.

    Source: "How to Scale Your Model" (jax-ml.github.io/scaling-book), chapter "Sharding".
    """
    chip, per_chip = machine.pod.chip, machine.devices_per_chip
    if not machine.pod.sides:
        return _gpu_seconds(collective, machine)
    if machine.leaves_slice(collective.axes):
        return collective.sent_bytes * per_chip / chip.dcn_bytes_per_second
    ring = 2 * chip.link_bytes_per_second / per_chip
    ways = machine.ways(collective.axes, collective.group_size)
    if collective.kind == "collective-permute" or not ways:
        return collective.sent_bytes / (0.5 * ring)
    if collective.kind in _ALL_TO_ALLS:
        # What goes to chips further along a side passes the links of others on the way.
        passing = max(way.chips / 4 / way.rings for way in ways)
        return collective.bytes * passing / ring
    return collective.sent_bytes / (sum(way.rings for way in ways) * ring)


def _gpu_seconds(collective: Collective, machine: Machine) -> float:
    """One switch joins the GPUs of a node; each has a network card of its own to other nodes."""
    chip = machine.pod.chip
    nodes = machine.gpus_by_node(collective.axes, collective.group_size)
    inside = collective.sent_bytes / chip.link_bytes_per_second
    if len(nodes) == 1:
        return inside
    if collective.kind == "collective-permute":
        return collective.sent_bytes / chip.dcn_bytes_per_second
    if collective.kind in _ALL_TO_ALLS:
        away = 1 - min(nodes.values()) / collective.group_size
        return max(inside, collective.bytes * away / chip.dcn_bytes_per_second)
    # A ring enters and leaves a node over the cards of all the GPUs that it has there.
    cards = min(nodes.values())
    return max(inside, collective.sent_bytes / (cards * chip.dcn_bytes_per_second))


def _compute_seconds(cycles: int, matmul_flops: float, hbm_bytes: float, machine: Machine) -> float:
    chip = machine.pod.chip
    if chip.clock_hz:
        return cycles / chip.clock_hz
    return max(matmul_flops / (_MATMULS * chip.bf16_flops), hbm_bytes / chip.hbm_bytes_per_second)
