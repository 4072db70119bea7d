"""A group of devices has the links of the sides of the torus that it lies along, and no others."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.aot.compile import DoesNotFit, compile_program
from llama_jax.aot.machine import Way, _places
from llama_jax.aot.topology import devices_of, prepare_environment
from llama_jax.config import MeshConfig
from llama_jax.hardware import larger_pods, parse_pod
from llama_jax.pods import mesh_over, parse_slices
from llama_jax.sharding import make_mesh
from tests.aot.fakes import machine

NO_LIBTPU = importlib.util.find_spec("libtpu") is None


def needs_libtpu(test):
    return pytest.mark.tpu(pytest.mark.skipif(NO_LIBTPU, reason="libtpu is not installed")(test))


def ways(topology, axes, size, **mesh):
    return machine(topology, **mesh).ways(axes, size)


@pytest.mark.parametrize(
    ("topology", "mesh", "axis", "expected"),
    [
        # A side of 16 closes, the one of 8 beside it does not.
        ("v5e:8x16", {"fsdp": 8, "fsdp_line": 16}, "fsdp", [Way(8, 0.5)]),
        ("v5e:8x16", {"fsdp": 8, "fsdp_line": 16}, "fsdp_line", [Way(16, 1.0)]),
        ("v5p:4x4x8", {"fsdp": 16, "fsdp_line": 8}, "fsdp", [Way(4, 1.0), Way(4, 1.0)]),
        # Two neighbours of a ring have one link between them, not the ring.
        ("v5p:4x4x4", {"fsdp": 32, "tensor": 2}, "tensor", [Way(2, 0.5)]),
        # Every second chip of a closed side: two such rings share its links.
        ("v5e:16x16", {"fsdp": 128, "tensor": 2}, "fsdp", [Way(8, 0.5), Way(16, 1.0)]),
        # A plane of 2 x 4, none of which closes.
        ("v5e:2x4", {"fsdp": 8}, "fsdp", [Way(2, 0.5), Way(4, 0.5)]),
        # JAX numbers four chips around, so that an axis of two is a diagonal.
        ("v5e:2x2", {"fsdp": 2, "fsdp_line": 2}, "fsdp", [Way(2, 0.25), Way(2, 0.25)]),
        ("tpu7x:4x4x4", {"fsdp": 64, "tensor": 2}, "tensor", []),
        ("tpu7x:4x4x4", {"fsdp": 32, "fsdp_line": 4}, "fsdp", [Way(4, 1.0), Way(4, 1.0)]),
    ],
)
def test_links_are_those_of_the_sides_that_an_axis_covers(topology, mesh, axis, expected):
    assert list(ways(topology, (axis,), mesh[axis], **mesh)) == expected


def test_a_part_of_an_axis_is_its_nearest_devices():
    (way,) = ways("v5p:4x4x8", ("fsdp_line",), 2, fsdp=16, fsdp_line=8)
    assert way == Way(2, 0.5)


def test_slices_are_laid_out_alike():
    one = ways("v5e:8x16", ("fsdp",), 8, fsdp=8, fsdp_line=16)
    two = machine("v5e:8x16", slices=2, replica=2, fsdp=8, fsdp_line=16)
    assert two.ways(("fsdp",), 8) == one
    assert two.leaves_slice(("replica",)) and not two.leaves_slice(("fsdp", "fsdp_line"))


def test_a_group_of_gpus_knows_how_many_it_has_in_each_node():
    nodes = machine("h100:32", replica=2, fsdp=8, tensor=2)
    assert nodes.gpus_by_node(("tensor",), 2) == {0: 2}
    assert nodes.gpus_by_node(("fsdp",), 8) == {0: 4, 1: 4}
    assert nodes.gpus_by_node(("replica", "fsdp", "tensor"), 32) == dict.fromkeys(range(4), 8)
    assert nodes.gpus_by_node(("replica",), 2) == {0: 1, 2: 1}


@needs_libtpu
@pytest.mark.parametrize(
    ("slices", "split"),
    [
        (text, split)
        for text in (
            *("v4:2x2x1", "v4:4x4x8", "v5p:2x2x2", "v5p:2x4x4", "v5p:8x4x4", "v5p:4x4x8*2"),
            *("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:8x16", "v5e:4x4*2", "v6e:2x4", "v6e:16x16"),
            *("tpu7x:2x2x1", "tpu7x:2x2x2", "tpu7x:2x2x4", "tpu7x:4x4x4"),
        )
        for split in ("all", "plane and line", "tensor")
    ],
)
def test_devices_lie_where_those_of_the_compiler_lie(slices, split):
    prepare_environment()
    pods = parse_slices(slices, "--pod")
    mesh = make_mesh(
        {
            "all": MeshConfig(replica=pods.count),
            "plane and line": mesh_over(pods),
            "tensor": MeshConfig(replica=pods.count, tensor=2),
        }[split],
        devices_of(pods.pod, pods.count),
    )
    ours = _places(pods.pod, pods.count, tuple(mesh.shape.items()))
    theirs = np.array([device.coords for device in mesh.devices.flat])
    one_slice = theirs[: math.prod(mesh.shape.values()) // pods.count]
    assert (ours.reshape(-1, 3) == one_slice).all()


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_memory_is_what_the_compiler_has(topology):
    prepare_environment()
    pod = parse_pod(topology)
    mesh = Mesh(np.array(devices_of(pod)[:1]), ("alone",))
    alone = NamedSharding(mesh, PartitionSpec())
    large = jax.ShapeDtypeStruct((1 << 18, 1 << 18), jnp.float32, sharding=alone)
    with pytest.raises(DoesNotFit) as refused:
        compile_program(jax.jit(lambda x: x @ x).lower(large), {})
    usable = pod.chip.usable_bytes / pod.chip.devices_per_chip
    assert refused.value.limit == pytest.approx(usable, abs=0.005 * 2**30)


@pytest.mark.parametrize(
    ("pod", "next_ones"),
    [
        ("v5e:4x4", ["4x8", "8x8", "8x16", "16x16"]),
        ("v5p:2x4x4", ["4x4x4", "4x4x8", "4x4x12"]),
        ("h100:8", ["16", "32", "64"]),
        ("h100:2", ["8", "16", "32"]),
    ],
)
def test_the_next_larger_pods_are_told(pod, next_ones):
    found = [larger.topology or str(larger.count) for larger in larger_pods(parse_pod(pod))]
    assert found[: len(next_ones)] == next_ones
