"""Where every logical axis lives on the device mesh. The only file that names a mesh axis."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import nnx
from flax.core import spmd
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.config import MeshConfig

MeshAxes = str | tuple[str, ...] | None
MESH_AXES = ("replica", "fsdp", "context", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardingRules:
    """Maps each logical axis to the mesh axes that split it; `None` replicates it."""

    # Parameters.
    layers: MeshAxes = None
    vocab: MeshAxes = "tensor"
    embed: MeshAxes = "fsdp"
    mlp: MeshAxes = "tensor"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    norm: MeshAxes = None
    # Activations.
    batch: MeshAxes = ("replica", "fsdp")
    seq: MeshAxes = "context"
    act_embed: MeshAxes = None
    act_mlp: MeshAxes = "tensor"
    act_heads: MeshAxes = "tensor"
    act_kv_heads: MeshAxes = "tensor"
    act_vocab: MeshAxes = "tensor"


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Device mesh of the four axes; XLA places what we leave unsaid.

    Args:
        config: Sizes; an axis of -1 takes the devices that the others leave.
        devices: Defaults to all devices of all processes.

    Raises:
        ValueError: If the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dataclasses.asdict(config)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % fixed or (-1 not in sizes.values() and fixed != len(devices)):
        wanted = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"{wanted} cannot be laid over {len(devices)} devices: the sizes must multiply to "
            "that number. Set one axis to -1 to let it take the rest."
        )
    shape = tuple(len(devices) // fixed if size == -1 else size for size in sizes.values())
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 4, devices=devices)


@contextlib.contextmanager
def use_layout(mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Iterator[None]:
    """Makes `mesh` and `rules` current: parameters created inside are born sharded."""
    with jax.set_mesh(mesh), nnx.logical_axis_rules(tuple(dataclasses.asdict(rules).items())):
        yield


@contextlib.contextmanager
def split_heads_for_rows() -> Iterator[None]:
    """Makes rules current under which the devices that split a row split its heads instead."""
    rules = dict(spmd.get_logical_axis_rules())
    # Behind the axes that split the heads already, so that heads move within a row's devices only.
    heads = {
        axis: (*_mesh_axes(axis), *_mesh_axes("seq")) for axis in ("act_heads", "act_kv_heads")
    }
    with nnx.logical_axis_rules(tuple((rules | heads | {"seq": None}).items())):
        yield


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to the layout of its logical axes.

    Raises:
        ValueError: If an axis is not a field of `ShardingRules`.
    """
    spec = partition_spec(*axes)
    # One device needs no pin, and outside of `jit` could not take one.
    alone = jax.sharding.get_abstract_mesh().size == 1
    return x if alone else jax.lax.with_sharding_constraint(x, spec)


def partition_spec(*axes: str | None) -> P:
    """The mesh axes that split each logical axis under the current rules.

    Raises:
        ValueError: If an axis is not a field of `ShardingRules`.
    """
    rules = dict(spmd.get_logical_axis_rules())
    if unknown := [axis for axis in axes if axis is not None and axis not in rules]:
        raise ValueError(f"Unknown logical axes {unknown}; ShardingRules has {sorted(rules)}.")
    return P(*(rules[axis] if axis is not None else None for axis in axes))


def num_shards(axis: str) -> int:
    """Devices among which the current layout splits a logical axis; 1 outside of a mesh."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(name, 1) for name in _mesh_axes(axis)) if sizes else 1


def check_split(axis: str, **fields: int) -> None:
    """Refuses sizes that the current layout cannot split evenly along a logical axis.

    Args:
        axis: A field of `ShardingRules`.
        **fields: Sizes by the name of their config field, `.` written `__`.

    Raises:
        ValueError: Naming the field, the mesh axes and their sizes.
    """
    shards = num_shards(axis)
    for field, size in fields.items():
        if size % shards:
            sizes = jax.sharding.get_abstract_mesh().shape
            split = " * ".join(f"mesh.{name}={sizes[name]}" for name in _mesh_axes(axis))
            raise ValueError(
                f"{field.replace('__', '.')}={size} must be a multiple of {split}, which splits it."
            )


def _mesh_axes(axis: str) -> tuple[str, ...]:
    return _names(partition_spec(axis)[0])


def _names(split: Any) -> tuple[str, ...]:
    return () if split is None else (split,) if isinstance(split, str) else tuple(split)


def platform() -> str:
    """Of the devices of the current mesh, present or not, such as "tpu"; else of JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def batch_sharding(mesh: Mesh, rules: ShardingRules = ShardingRules()) -> NamedSharding:
    """Layout of a global batch of rows, `B T`."""
    return NamedSharding(mesh, P(rules.batch, rules.seq))


def divisible(spec: P, shape: Sequence[int], mesh: Mesh) -> P:
    """The layout without the splits of axes that it cannot split evenly."""

    def kept(split: Any, length: int) -> Any:
        return None if length % math.prod(mesh.shape[name] for name in _names(split)) else split

    return P(*map(kept, spec, shape))


def replicated(mesh: Mesh) -> NamedSharding:
    """Layout of a value that every device holds whole."""
    return NamedSharding(mesh, P())
