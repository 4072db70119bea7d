"""Meshes and logical axes: what fits is laid out, what does not is refused by name."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax.config import MeshConfig
from llama_jax.sharding import (
    MESH_AXES,
    ShardingRules,
    constrain,
    gather,
    make_mesh,
    partition_spec,
    use_layout,
)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (1, 1, 8, 1, 1, 1)),
        (MeshConfig(stage=2, tensor=2), (1, 2, 2, 1, 1, 2)),
        (MeshConfig(replica=-1, fsdp=2, tensor=2), (2, 1, 2, 1, 1, 2)),
        (MeshConfig(replica=1, fsdp=2, fsdp_line=2, tensor=2), (1, 1, 2, 2, 1, 2)),
    ],
)
def test_one_axis_takes_the_devices_that_the_others_leave(config, shape):
    mesh = make_mesh(config)
    assert mesh.axis_names == MESH_AXES
    assert mesh.devices.shape == shape


@pytest.mark.parametrize("config", [MeshConfig(tensor=3), MeshConfig(fsdp=4), MeshConfig(fsdp=16)])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(config):
    wanted = f"mesh.tensor={config.tensor} cannot be laid over 8 devices"
    with pytest.raises(ValueError, match=wanted):
        make_mesh(config)


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"

    @property
    def process_index(self):
        return self.id


def in_slices(number: int, of: int) -> list:
    return [FakeDevice(i, i // of) for i in range(number * of)]


def test_a_slice_that_would_hold_part_of_a_replica_or_stage_is_refused():
    complaint = r"mesh\.replica=1 \* mesh\.stage=1 cannot be laid over 2 slices"
    with pytest.raises(ValueError, match=complaint):
        make_mesh(MeshConfig(fsdp=4), in_slices(2, of=2))


@pytest.mark.parametrize(
    ("config", "apart"),
    [
        (MeshConfig(replica=4, fsdp=1), [[0], [0], [1], [1]]),
        (MeshConfig(stage=4, fsdp=1), [[0, 0, 1, 1]]),
        (MeshConfig(replica=2, stage=2, fsdp=1), [[0, 0], [1, 1]]),
    ],
)
def test_slices_hold_whole_replicas_or_stages(config, apart):
    mesh = make_mesh(config, in_slices(2, of=2))
    slices = [[device.slice_index for device in row.flat] for row in mesh.devices]
    assert slices == apart


def test_a_mistyped_logical_axis_is_refused(one_device):
    with pytest.raises(ValueError, match="Unknown logical axis 'sequence'"):
        constrain(jnp.zeros((2, 2)), "batch", "sequence")


def test_an_activation_is_split_as_its_rules_say(eight_devices):
    x = jax.jit(lambda x: constrain(x, "batch", "seq", "act_mlp"))(jnp.zeros((4, 4, 4)))
    assert x.addressable_shards[0].data.shape == (2, 2, 2)
    assert partition_spec("batch", None) == P(("replica", "stage", "fsdp", "fsdp_line"), None)


def test_every_rule_names_axes_of_the_mesh():
    for axes in dataclasses.asdict(ShardingRules()).values():
        names = (axes,) if isinstance(axes, str) else axes or ()
        assert set(names) <= set(MESH_AXES)


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"fsdp": 4, "fsdp_line": 2}])
def test_a_gathered_weight_has_the_gradient_of_a_whole_one_without_a_reduce_scatter(sizes):
    weight, rows = jnp.arange(32.0).reshape(16, 2), jnp.arange(16.0).reshape(8, 2)

    def loss_of(weight, rows):
        return jnp.sum(jnp.square(rows @ gather(weight, "embed", None).T))[None]

    with use_layout(make_mesh(MeshConfig(replica=1, **sizes))):
        by_rows = partition_spec("batch")
        loss = jax.shard_map(
            loss_of,
            in_specs=(partition_spec("embed", None), by_rows),
            out_specs=by_rows,
            check_vma=False,
        )
        gradient = jax.jit(jax.grad(lambda weight, rows: jnp.sum(loss(weight, rows))))
        compiled = gradient.lower(weight, rows).compile()
        found = compiled(weight, rows)
    assert jnp.allclose(found, 2 * weight @ rows.T @ rows, rtol=1e-6)
    # CPUs of several processes would be given wrong values by it.
    assert "reduce-scatter" not in compiled.as_text()
