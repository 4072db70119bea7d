"""Where every logical axis lives on the device mesh. The only file that names a mesh axis."""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from flax.core import spmd
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.config import MeshConfig

MeshAxes = str | tuple[str, ...] | None
MESH_AXES = ("replica", "stage", "fsdp", "fsdp_line", "context", "tensor")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardingRules:
    """Maps each logical axis to the mesh axes that split it; `None` replicates it."""

    # Parameters.
    layers: MeshAxes = "stage"
    vocab: MeshAxes = "tensor"
    embed: MeshAxes = ("fsdp", "fsdp_line")
    mlp: MeshAxes = "tensor"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    norm: MeshAxes = None
    # Activations.
    batch: MeshAxes = ("replica", "stage", "fsdp", "fsdp_line")
    seq: MeshAxes = "context"
    stream: MeshAxes = ("context", "tensor")  # tokens of the residual stream, between blocks
    act_embed: MeshAxes = None
    act_mlp: MeshAxes = "tensor"
    act_heads: MeshAxes = "tensor"
    act_kv_heads: MeshAxes = "tensor"
    act_vocab: MeshAxes = "tensor"


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Device mesh of all axes; XLA places what we leave unsaid.

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
    grid = _grid(shape, devices)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _grid(shape: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Devices in the shape of a mesh, neighbours in it being neighbours on the wires.

    Raises:
        ValueError: If replicas and stages cannot be divided among the slices of a pod.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    replicas, stages, *rest = shape
    apart = math.gcd(replicas, slices), slices // math.gcd(replicas, slices)
    if stages % apart[1]:
        raise ValueError(
            f"mesh.replica={replicas} * mesh.stage={stages} cannot be laid over {slices} slices: "
            "between slices only gradients of whole copies, or activations between stages, fit "
            "through the network. Make their product a multiple of the slices."
        )
    return mesh_utils.create_hybrid_device_mesh(
        (replicas // apart[0], stages // apart[1], *rest),
        (*apart, *(1 for _ in rest)),
        devices,
        allow_split_physical_axes=True,
    )


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


def constrain_stream(x: jax.Array) -> jax.Array:
    """Pins the residual stream, `B T D`, to its layout between blocks.

    Its tokens are split over the devices that split heads and MLP width too: each norms, adds and
    saves a part, and what a block adds arrives by a reduce-scatter, in place of a sum that all of
    them hold whole. Tokens that cannot be split so, as the one that is generated next, stay whole.

    Source: Korthikanti et al. 2022 (arXiv:2205.05198), section 4.2.2.
    """
    split = x.shape[1] % num_shards("stream") == 0
    return constrain(x, "batch", "stream" if split else "seq", "act_embed")


def partition_spec(*axes: str | None) -> P:
    """The mesh axes that split each logical axis under the current rules.

    Within `on_data_shards` a device sees its own shard: those axes split nothing there.

    Raises:
        ValueError: If an axis is not a field of `ShardingRules`.
    """
    ours = jax.sharding.get_abstract_mesh().manual_axes
    return P(*(_without(_rule(axis), ours) for axis in axes))


def on_data_shards(function: Callable[..., T]) -> Callable[..., T]:
    """Runs `function(params, batch)` on each shard of the batch apart, and stacks what it returns.

    Each device gets its own rows, and of each parameter the layers of its stage and its own part
    along `embed`, which `gather` makes whole where it is used. The transpose of that gather is a
    reduce-scatter, so that no gradient is ever whole on a device; left to the partitioner, it
    would be summed by an all-reduce first. The other mesh axes stay the partitioner's.

    Args:
        function: Returns a tree of scalars, which come back as vectors, one entry a shard.
    """

    def of_one(params: Any, batch: Any) -> T:
        return jax.tree.map(lambda x: x[None], function(params, batch))

    def of_all(params: Any, batch: Any) -> T:
        data_axes = set(_mesh_axes("batch"))
        if num_shards("batch") == 1:
            return of_one(params, batch)
        rest = set(MESH_AXES) - data_axes
        specs = jax.tree.map(
            lambda spec: P(*(_without(entry, rest) for entry in spec)),
            nnx.get_partition_spec(params),
            is_leaf=lambda leaf: isinstance(leaf, P),
        )
        by_rows = P(_mesh_axes("batch"))
        return jax.shard_map(
            of_one,
            in_specs=(specs, by_rows),
            out_specs=by_rows,
            axis_names=data_axes,
            check_vma=False,
        )(params, batch)

    return of_all


def gather(weight: jax.Array, *axes: str | None) -> jax.Array:
    """Makes whole a weight of which `on_data_shards` gave this device a part; else does nothing.

    Args:
        weight: In the dtype in which it and its gradient travel.
        *axes: Its logical axes.
    """
    ours = jax.sharding.get_abstract_mesh().manual_axes
    for dimension, axis in enumerate(axes):
        split_by = tuple(name for name in _names(_rule(axis)) if name in ours)
        if split_by:
            weight = _gather(weight, split_by, dimension, _SUMMED.get())
    return weight


@contextlib.contextmanager
def gradients_summed(whole: bool) -> Iterator[None]:
    """Within, the gradient of a gathered weight is summed whole before each device takes its part.

    A sum moves twice the bytes of a reduce-scatter, and XLA runs it beside matmuls on TPUs on which
    it has the device wait for a reduce-scatter.

    Args:
        whole: Whether it is; else it is scattered.
    """
    before = _SUMMED.set(whole)
    try:
        yield
    finally:
        _SUMMED.reset(before)


_SUMMED = contextvars.ContextVar("gradients_summed", default=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(shard: jax.Array, split_by: tuple[str, ...], dimension: int, summed: bool) -> jax.Array:
    for name in reversed(split_by):
        shard = jax.lax.all_gather(shard, name, axis=dimension, tiled=True)
    return shard


def _gather_forward(
    shard: jax.Array, split_by: tuple[str, ...], dimension: int, summed: bool
) -> tuple[Any, None]:
    return _gather(shard, split_by, dimension, summed), None


def _scatter_gradient(
    split_by: tuple[str, ...], dimension: int, summed: bool, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
    first, *rest = split_by
    gradient = reduce_scatter(gradient, first, dimension, whole=summed)
    for name in rest:  # what the first axis leaves is small
        gradient = reduce_scatter(gradient, name, dimension)
    return (gradient,)


def reduce_scatter(x: jax.Array, name: str, dimension: int, *, whole: bool = False) -> jax.Array:
    """Sums `x` over the devices along a mesh axis that is ours; each keeps its part of the sum.

    Args:
        x: Of each device.
        name: Of the axis.
        dimension: Of `x`, along which it is cut.
        whole: Whether to sum all of it before it is cut.
    """
    # Gloo's reduce-scatter gives wrong values now and then where a device's part has megabytes
    # (jax-ml/jax issue 40830), and CPUs of several processes speak through it.
    if platform() != "cpu" and not whole:
        return jax.lax.psum_scatter(x, name, scatter_dimension=dimension, tiled=True)
    size = x.shape[dimension] // jax.lax.axis_size(name)
    start = jax.lax.axis_index(name) * size
    return jax.lax.dynamic_slice_in_dim(jax.lax.psum(x, name), start, size, dimension)


_gather.defvjp(_gather_forward, _scatter_gradient)


def stage_axis() -> str | None:
    """The mesh axis of pipeline stages, where `on_data_shards` has split layers along it."""
    mesh = jax.sharding.get_abstract_mesh()
    (name,) = _names(_rule("layers"))
    return name if name in mesh.manual_axes and mesh.shape[name] > 1 else None


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


def _rule(axis: str | None) -> MeshAxes:
    rules = dict(spmd.get_logical_axis_rules())
    if axis is None:
        return None
    if axis not in rules:
        raise ValueError(f"Unknown logical axis {axis!r}; ShardingRules has {sorted(rules)}.")
    return rules[axis]


def _names(entry: MeshAxes) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _without(entry: MeshAxes, axes: Collection[str]) -> MeshAxes:
    left = tuple(name for name in _names(entry) if name not in axes)
    return left if len(left) > 1 else left[0] if left else None


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
