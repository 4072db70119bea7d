"""Accelerators: peaks, memory and bandwidths of one chip, each with its source."""

import dataclasses
import difflib
import itertools
import math
import re
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One chip as its maker describes it.

    Attributes:
        name: Short name, as topologies are named: "v5p", "h100".
        device_kinds: What `jax.Device.device_kind` starts with on this chip, in lower case.
        devices_per_chip: JAX devices that one chip shows.
        bf16_flops: Dense peak, FLOP/s a chip.
        float32_flops: Dense peak of float32 matmuls, FLOP/s a chip; 0 where none is published.
        hbm_bytes: Memory of a chip.
        usable_bytes: What a program can have of it.
        hbm_bytes_per_second: Memory bandwidth of a chip.
        clock_hz: Of the cores whose cycles the compiler estimates; 0 where it estimates none.
        link_bytes_per_second: Of one link to a neighbour, one way.
        host_bytes_per_second: Between a chip and the memory of its host, each way.
        dcn_bytes_per_second: Of one chip out of its slice or node, one way.
        scatters_aside: Whether cores beside the matrix units (SparseCores) can carry out a
            reduce-scatter while these go on. Those of v4 are not offered one by libtpu 0.0.42.1.
        source: Where the numbers are from.
    """

    name: str
    device_kinds: tuple[str, ...]
    devices_per_chip: int = 1
    bf16_flops: float
    float32_flops: float = 0.0
    hbm_bytes: float
    usable_bytes: float
    hbm_bytes_per_second: float
    clock_hz: float = 0.0
    link_bytes_per_second: float = 0.0
    host_bytes_per_second: float
    dcn_bytes_per_second: float = 0.0
    scatters_aside: bool = False
    source: str


GIB = float(1 << 30)
# Of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise. Source: JAX's
# documentation, "GPU memory allocation".
_JAX_TAKES = 0.75

# Clocks of TPUs are their peak over what their matrix units do in a cycle: 131,072 FLOPs a core
# on v4 and v5e, 262,144 on v5p's two cores, 524,288 on v6e and on each of tpu7x's two. The cycles
# that libtpu 0.0.42.1 estimates for a matmul of 16,384 squared agree: 94%, 92%, 94%, 78% and 85%
# of the peak. Links and networks of TPUs: "How to Scale Your Model", chapter "TPUs"
# (jax-ml.github.io/scaling-book); of GPUs: NVLink 3 and 4, and a network card of 200 or 400 Gbit/s
# a GPU (NVIDIA's DGX datasheets). To its host a v4 has 16 GB/s each way and a v6e 15 (the same
# chapter); no figure of the other TPUs was found, and they are given v4's; GPUs have 16 lanes of
# PCIe 4 or 5 (NVIDIA's datasheets). What a program can have of a TPU's memory is what libtpu says
# where it refuses one; of an H100's and an H200's, JAX's share of what XLA finds on them.
ACCELERATORS = (
    Accelerator(
        name="v4",
        device_kinds=("tpu v4",),
        bf16_flops=275e12,
        hbm_bytes=32 * GIB,
        usable_bytes=30.75 * GIB,
        hbm_bytes_per_second=1228e9,
        clock_hz=1.05e9,
        link_bytes_per_second=45e9,
        host_bytes_per_second=16e9,
        dcn_bytes_per_second=6.25e9,
        source="Google Cloud TPU v4 documentation",
    ),
    Accelerator(
        name="v5e",
        device_kinds=("tpu v5 lite", "tpu v5e"),
        bf16_flops=197e12,
        hbm_bytes=16 * GIB,
        usable_bytes=15.75 * GIB,
        hbm_bytes_per_second=819e9,
        clock_hz=1.5e9,
        link_bytes_per_second=45e9,
        host_bytes_per_second=16e9,
        dcn_bytes_per_second=3.125e9,
        source="Google Cloud TPU v5e documentation",
    ),
    Accelerator(
        name="v5p",
        device_kinds=("tpu v5p", "tpu v5"),
        bf16_flops=459e12,
        hbm_bytes=95 * GIB,
        usable_bytes=95.74 * GIB,
        hbm_bytes_per_second=2765e9,
        clock_hz=1.75e9,
        link_bytes_per_second=90e9,
        host_bytes_per_second=16e9,
        dcn_bytes_per_second=6.25e9,
        scatters_aside=True,
        source="Google Cloud TPU v5p documentation",
    ),
    Accelerator(
        name="v6e",
        device_kinds=("tpu v6 lite", "tpu v6e"),
        bf16_flops=918e12,
        hbm_bytes=32 * GIB,
        usable_bytes=31.25 * GIB,
        hbm_bytes_per_second=1640e9,
        clock_hz=1.75e9,
        link_bytes_per_second=90e9,
        host_bytes_per_second=15e9,
        dcn_bytes_per_second=12.5e9,
        scatters_aside=True,
        source="Google Cloud TPU v6e documentation",
    ),
    Accelerator(
        name="tpu7x",
        device_kinds=("tpu7x", "tpu v7"),
        devices_per_chip=2,
        bf16_flops=2307e12,
        hbm_bytes=192 * GIB,
        usable_bytes=2 * 94.75 * GIB,
        hbm_bytes_per_second=7380e9,
        clock_hz=2.2e9,
        link_bytes_per_second=90e9,
        host_bytes_per_second=16e9,
        dcn_bytes_per_second=12.5e9,
        scatters_aside=True,
        source="Google Cloud TPU7x documentation",
    ),
    Accelerator(
        name="a100",
        device_kinds=("nvidia a100",),
        bf16_flops=312e12,
        float32_flops=19.5e12,
        hbm_bytes=80e9,
        usable_bytes=_JAX_TAKES * 80e9,
        hbm_bytes_per_second=2039e9,
        link_bytes_per_second=300e9,
        host_bytes_per_second=32e9,
        dcn_bytes_per_second=25e9,
        source="NVIDIA A100 80GB SXM datasheet",
    ),
    Accelerator(
        name="h100",
        device_kinds=("nvidia h100",),
        bf16_flops=989e12,
        float32_flops=67e12,
        hbm_bytes=80e9,
        usable_bytes=_JAX_TAKES * 84_978_434_048,
        hbm_bytes_per_second=3352e9,
        link_bytes_per_second=450e9,
        host_bytes_per_second=64e9,
        dcn_bytes_per_second=50e9,
        source="NVIDIA H100 SXM datasheet, dense",
    ),
    Accelerator(
        name="h200",
        device_kinds=("nvidia h200",),
        bf16_flops=989e12,
        float32_flops=67e12,
        hbm_bytes=141e9,
        usable_bytes=_JAX_TAKES * 150_000_000_000,
        hbm_bytes_per_second=4800e9,
        link_bytes_per_second=450e9,
        host_bytes_per_second=64e9,
        dcn_bytes_per_second=50e9,
        source="NVIDIA H200 SXM datasheet, dense",
    ),
)


def find_accelerator(device_kind: str) -> Accelerator | None:
    """The chip that JAX calls `device_kind`, or None where it is not in the table (a CPU, say)."""
    kind = device_kind.lower()
    matches = [
        (len(prefix), chip)
        for chip in ACCELERATORS
        for prefix in chip.device_kinds
        if kind.startswith(prefix)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """Chips that are joined to one machine.

    Attributes:
        chip: What each one is.
        count: How many.
        topology: Their grid, as in "4x4x8"; empty where the chips form none.
    """

    chip: Accelerator
    count: int
    topology: str = ""

    @property
    def bf16_flops(self) -> float:
        """Peak of all chips, FLOP/s."""
        return self.chip.bf16_flops * self.count

    @property
    def sides(self) -> tuple[int, ...]:
        """Chips along each side of the grid; empty where they form none."""
        return tuple(int(side) for side in self.topology.split("x")) if self.topology else ()

    @property
    def rings(self) -> tuple[bool, ...]:
        """Whether the links along each side close to a ring.

        Source: Google Cloud TPU documentation: full tori in 3D from 4x4x4 on; in 2D a side of 16.
        """
        if self.chip.name in _2D:
            return tuple(side == 16 for side in self.sides)
        return (all(side % 4 == 0 for side in self.sides),) * len(self.sides)


# Slices that can be asked for. 3D: these, and grids whose sides are multiples of 4 up to the
# largest. Source: Google Cloud TPU documentation, "TPU configurations" of each generation.
_SMALL_3D = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_LARGEST_3D = {"v4": (12, 16, 16), "v5p": (16, 16, 24), "tpu7x": (16, 24, 24)}
_GRIDS_2D = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_2D = ("v5e", "v6e")
GPUS_A_NODE = 8


def parse_pod(text: str, flag: str = "--chips") -> Pod:
    """Reads "v5p:4x4x8", "h100:64" or "h100:8x8", or a chip's name alone for one chip.

    Args:
        text: What was given.
        flag: By which, for messages.

    Raises:
        ValueError: If there is no such chip, or its maker offers no such grid.
    """
    name, _, size = text.partition(":")
    chips = {chip.name: chip for chip in ACCELERATORS}
    if name not in chips:
        close = difflib.get_close_matches(name, chips, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"{flag}={text!r}: {name!r} is no chip.{hint} There are: {', '.join(chips)}."
        )
    if not size:
        return Pod(chip=chips[name], count=1)
    if not re.fullmatch(r"[1-9]\d{0,6}(x[1-9]\d{0,6})*", size):
        raise ValueError(f"{flag}={text!r} must be CHIP, CHIP:COUNT or CHIP:GRID (v5p:4x4x8).")
    sides = tuple(int(side) for side in size.split("x"))
    if name not in _LARGEST_3D and name not in _2D:
        count = math.prod(sides)
        if sides[1:] not in ((), (GPUS_A_NODE,)) or (count > GPUS_A_NODE and count % GPUS_A_NODE):
            raise ValueError(
                f"{flag}={text!r}: {name} comes in nodes of {GPUS_A_NODE}; give a count of up to "
                f"{GPUS_A_NODE}, a multiple of it ({name}:{max(1, count // 8) * 8}), or nodes and "
                f"GPUs ({name}:8x{GPUS_A_NODE})."
            )
        return Pod(chip=chips[name], count=count)
    grids = _grids(name)
    if tuple(sorted(sides)) not in {tuple(sorted(grid)) for grid in grids}:
        wanted = math.prod(sides)
        near = sorted(grids, key=lambda grid: (abs(math.log(math.prod(grid) / wanted)), grid))[:3]
        close = " or ".join(f"{name}:{'x'.join(map(str, grid))}" for grid in near)
        raise ValueError(
            f"{flag}={text!r}: there is no such slice. Did you mean {close}? {_existing(name)}"
        )
    return Pod(chip=chips[name], count=math.prod(sides), topology=size)


def larger_pods(pod: Pod) -> Iterator[Pod]:
    """All that there are of the same chip and have more of them, the smallest first.

    Of grids of one size the one that is nearest to a cube; of GPUs twice as many, up to 4,096.
    """
    if not pod.topology:
        whole = math.ceil(pod.count / GPUS_A_NODE) * GPUS_A_NODE
        counts = (whole << doubled for doubled in range(10))
        yield from (Pod(chip=pod.chip, count=n) for n in counts if pod.count < n <= 4096)
        return
    grids = sorted(_grids(pod.chip.name), key=lambda grid: (math.prod(grid), max(grid)))
    for count, same in itertools.groupby(grids, key=math.prod):
        if count > pod.count:
            yield Pod(chip=pod.chip, count=count, topology="x".join(map(str, next(same))))


def _existing(name: str) -> str:
    if name in _2D:
        return f"There are: {', '.join('x'.join(map(str, grid)) for grid in _GRIDS_2D)}."
    small = ", ".join("x".join(map(str, grid)) for grid in _SMALL_3D)
    largest = "x".join(map(str, _LARGEST_3D[name]))
    return f"There are: {small}, and all grids of multiples of 4 up to {largest}."


def _grids(name: str) -> list[tuple[int, ...]]:
    if name in _2D:
        return list(_GRIDS_2D)
    x_max, y_max, z_max = _LARGEST_3D[name]
    large = [
        (x, y, z)
        for x in range(4, x_max + 1, 4)
        for y in range(x, y_max + 1, 4)
        for z in range(y, z_max + 1, 4)
    ]
    return [*_SMALL_3D, *large]
