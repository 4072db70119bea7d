"""Which axes of the mesh a collective runs along, from the devices that it names."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from llama_jax.aot.hlo import Instruction, MalformedText

_LISTS = re.compile(r"replica_groups=\{((?:\{[\d,\s]*\},?\s*)*)\}")
_IOTA = re.compile(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))?\s*\{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?\s*)*)\}")
_TILES = re.compile(r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?")
_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Devices that exchange data.

    Attributes:
        axes: Of the mesh, along which they lie.
        size: How many they are.
    """

    axes: tuple[str, ...]
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The mesh as a program sees it, which is compiled for one slice of several.

    Attributes:
        inside: Sizes of the mesh's axes inside a slice, by name, in the mesh's order.
        across: Sizes across slices; slices are the slowest part of the mesh's order.
    """

    inside: Mapping[str, int]
    across: Mapping[str, int]


def layout_of(mesh_shape: Mapping[str, int], num_partitions: int | None) -> Layout:
    """Cuts a mesh into slices of `num_partitions` devices; None leaves it whole.

    Raises:
        MalformedText: If the mesh is not made of such slices.
    """
    num_devices = math.prod(mesh_shape.values())
    slices = num_devices // (num_partitions or num_devices)
    inside, across = dict(mesh_shape), dict.fromkeys(mesh_shape, 1)
    for name, size in mesh_shape.items():
        across[name] = math.gcd(size, slices)
        inside[name] = size // across[name]
        slices //= across[name]
        if inside[name] > 1:
            break
    if slices != 1 or num_devices % (num_partitions or num_devices):
        shape = " * ".join(f"{name}={size}" for name, size in mesh_shape.items())
        raise MalformedText(1, f"compiled for {num_partitions} devices, and the mesh is {shape}.")
    return Layout(inside, across)


def group_across_slices(layout: Layout) -> Group:
    """Devices at the same place of each slice."""
    axes = tuple(name for name, size in layout.across.items() if size > 1)
    return Group(axes, math.prod(layout.across.values()))


def group_of(collective: Instruction, mesh_shape: Mapping[str, int]) -> Group:
    """Where a collective runs; devices are numbered in the order of the mesh.

    Raises:
        MalformedText: If it names devices that the mesh does not have.
    """
    num_devices = math.prod(mesh_shape.values())
    groups = _groups(collective.attributes, num_devices)
    if groups.size and groups.max() >= num_devices:
        shape = " * ".join(f"{name}={size}" for name, size in mesh_shape.items())
        raise MalformedText(
            collective.line,
            f"{collective.opcode} names device {groups.max()}, and the mesh {shape} has "
            f"{num_devices}.",
        )
    places = np.stack(np.unravel_index(groups, tuple(mesh_shape.values())))
    moves = (places != places[..., :1]).any(axis=(1, 2))
    axes = tuple(name for name, moved in zip(mesh_shape, moves, strict=True) if moved)
    if "source_target_pairs" in collective.attributes:
        return Group(axes, math.prod(mesh_shape[name] for name in axes))
    return Group(axes, groups.shape[1])


def _groups(attributes: str, num_devices: int) -> np.ndarray:
    """One row of device numbers for each group, or for each pair of a permutation."""
    if found := _PAIRS.search(attributes) or _LISTS.search(attributes):
        rows = [
            [int(number) for number in row.split(",") if number.strip()]
            for row in re.findall(r"\{([\d,\s]*)\}", found[1])
        ]
        if rows:
            # Groups of unequal length do not come from a mesh; the first tells enough.
            width = len(rows[0])
            return np.array([row for row in rows if len(row) == width]).reshape(-1, width)
    elif found := _IOTA.search(attributes):
        return _tiles(found[1])
    elif found := _MESH.search(attributes):
        return _mesh_groups(found[1], found[2], found[3])
    return np.arange(num_devices)[None]


def _tiles(text: str) -> np.ndarray:
    """Reads `[4,2]<=[2,4]T(1,0)`: numbers from 0, shaped, transposed, and shaped again."""
    found = _TILES.match(text)
    assert found, text
    shape, source, order = (_numbers(part) if part else None for part in found.groups())
    assert shape is not None
    numbers = np.arange(math.prod(shape)).reshape(source or shape)
    if order:
        numbers = numbers.transpose(order)
    return numbers.reshape(shape if source else -1)


def _mesh_groups(sizes: str, device_ids: str | None, grouped: str) -> np.ndarray:
    """Reads `mesh['a'=8,'b'=2] {'b'}`: groups along `b`, or `'a':(2)4`, a part of `a`."""
    shape = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    parts = {name: [(size, False)] for name, size in shape.items()}
    for name, before, size in _AXIS.findall(grouped):
        if not size:
            parts[name] = [(shape[name], True)]
            continue
        after = shape[name] // (int(before) * int(size))
        parts[name] = [(int(before), False), (int(size), True), (after, False)]
    flat = [part for axis in parts.values() for part in axis]
    numbers = _tiles(device_ids) if device_ids else np.arange(math.prod(shape.values()))
    numbers = numbers.reshape([size for size, _ in flat])
    order = sorted(range(len(flat)), key=lambda axis: flat[axis][1])
    members = math.prod(size for size, inside in flat if inside)
    return numbers.transpose(order).reshape(-1, members)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
