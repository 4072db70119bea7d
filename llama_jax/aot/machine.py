"""What a program is compiled for, and over which links its devices meet; see docs/step_time.md."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from llama_jax.aot.groups import layout_of
from llama_jax.config import MeshConfig
from llama_jax.hardware import GPUS_A_NODE, Pod
from llama_jax.sharding import make_mesh


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A side of the torus along which a group of devices lies.

    Attributes:
        chips: Of the group, along the side.
        rings: Of links that the group has for itself: 1 for the whole of a side that closes, a half
            for a line, and less where several groups share the links.
    """

    chips: int
    rings: float


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

    @property
    def device_memory(self) -> float:
        """Bytes that a program can have on one device."""
        return self.pod.chip.usable_bytes / self.devices_per_chip

    def ways(self, axes: Sequence[str], size: int) -> tuple[Way, ...]:
        """Sides of the torus that `size` devices along mesh axes span; none inside a chip."""
        mesh = tuple(self.mesh_shape.items())
        return _ways(self.pod, self.num_slices, mesh, tuple(axes), size)

    def leaves_slice(self, axes: Sequence[str]) -> bool:
        """Whether a group along these axes holds devices of several slices."""
        names, sizes = list(self.mesh_shape), list(self.mesh_shape.values())
        together = math.prod(sizes) // self.num_slices
        # Devices are laid out slice by slice, the last axis closest together.
        spans = (
            math.prod(sizes[names.index(name) :]) for name in axes if self.mesh_shape[name] > 1
        )
        return max(spans, default=1) > together

    def gpus_by_node(self, axes: Sequence[str], size: int) -> Counter[int]:
        """GPUs of a group in each node that it reaches."""
        shape = tuple(self.mesh_shape.values())
        numbers = np.arange(math.prod(shape)).reshape(shape)
        return Counter(
            (_first_group(numbers, self.mesh_shape, axes)[:size] // GPUS_A_NODE).tolist()
        )


def _first_group(values: np.ndarray, mesh: Mapping[str, int], axes: Sequence[str]) -> np.ndarray:
    """Of values by their place in the mesh, those of the first group along some of its axes."""
    first = values[tuple(slice(None) if name in axes else 0 for name in mesh)]
    return first.reshape(-1, *values.shape[len(mesh) :])


@functools.lru_cache(maxsize=4096)
def _ways(
    pod: Pod,
    num_slices: int,
    mesh: tuple[tuple[str, int], ...],
    axes: tuple[str, ...],
    size: int,
) -> tuple[Way, ...]:
    chips = np.unique(_first_group(_places(pod, num_slices, mesh), dict(mesh), axes)[:size], axis=0)
    ways: list[Way] = []
    for side, closes, along in zip(pod.sides, pod.rings, chips.T, strict=False):
        held = np.unique(along)
        if len(held) > 1:
            stride = int(np.gcd.reduce(np.diff(held)))  # as many groups lie between one another
            whole = closes and len(held) * stride == side
            ways.append(Way(len(held), (1.0 if whole else 0.5) / stride))
    # What lies between the chips of a group that is no full box has a share in the links.
    filled = len(chips) / math.prod(way.chips for way in ways)
    return tuple(Way(way.chips, way.rings * filled) for way in ways)


@dataclasses.dataclass(frozen=True, slots=True)
class _Device:
    """As much of a device as decides on its place in a mesh."""

    coords: tuple[int, int, int]
    core_on_chip: int
    device_kind: str
    platform: str = "tpu"
    process_index: int = 0


# As libtpu calls them; JAX lays some small slices out in an order of their own.
_KINDS = {
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
    "tpu7x": "TPU7x",
}


@functools.lru_cache(maxsize=64)
def _places(pod: Pod, num_slices: int, mesh: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Coordinates of the chips of one slice, by the place in the mesh of each of their devices."""
    per_slice = math.prod(size for _, size in mesh) // num_slices
    inside = layout_of(dict(mesh), per_slice).inside
    x, y, z = (*pod.sides, 1, 1)[:3]
    order = itertools.product(range(z), range(y), range(x), range(per_slice // pod.count))
    devices = [_Device((x, y, z), core, _KINDS[pod.chip.name]) for z, y, x, core in order]
    grid = make_mesh(MeshConfig(**inside), devices).devices
    places = np.array([device.coords for device in grid.flat])
    return places.reshape(*(inside[name] for name, _ in mesh), 3)
