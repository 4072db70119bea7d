"""Faults are found in programs that were written badly, and really compiled."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.aot.compile import compile_program
from llama_jax.aot.findings import find_faults
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import read_program
from llama_jax.aot.topology import devices_of, prepare_environment
from llama_jax.config import MeshConfig
from llama_jax.hardware import parse_pod
from llama_jax.recipe import load_recipe
from llama_jax.sharding import make_mesh

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
    ),
]
ROWS, TOKENS, WIDTH = 16, 1024, 512


def findings(topology, mesh_config, mlp_dim, hidden, out):
    """Of an MLP whose hidden and output activations are laid out so."""
    prepare_environment()
    pod = parse_pod(topology)
    mesh = make_mesh(mesh_config, devices_of(pod))

    def array(*shape, spec):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P(*spec)))

    def pin(x, spec):
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))

    def step(x, up, down):
        h = pin(jnp.einsum("BTD,DF->BTF", x, up), hidden)
        y = pin(jnp.einsum("BTF,FD->BTD", h, down), out)
        return jnp.square(y)

    arguments = (
        array(ROWS, TOKENS, WIDTH, spec=("fsdp",)),
        array(WIDTH, mlp_dim, spec=(None, "tensor")),
        array(mlp_dim, WIDTH, spec=("tensor",)),
    )
    with jax.set_mesh(mesh):
        compiled = compile_program(jax.jit(step).lower(*arguments), {})
    config = load_recipe("llama2_7b")
    model = dataclasses.replace(config.model, embed_dim=WIDTH, mlp_dim=mlp_dim, num_layers=1)
    config = dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, seq_len=TOKENS),
        train=dataclasses.replace(config.train, batch_size=ROWS),
    )
    machine = Machine(pod=pod, num_slices=1, mesh_shape=dict(mesh.shape))
    program = read_program(compiled.text, machine.mesh_shape)
    return find_faults(config, machine, program, compiled.memory)


MESH = MeshConfig(fsdp=4, tensor=2)


def test_activations_that_every_device_holds_and_sizes_that_fill_no_tile_are_told():
    told = findings("v5e:2x4", MESH, 1160, hidden=(), out=("fsdp",))
    (held,) = (one for one in told if "whole on each device" in one.what)
    assert held.severity == "costly"
    assert "along the batch, of which it should hold 4 of 16 rows" in held.what
    assert "[16,1024,1160]" in held.evidence and "BTD,DF->BTF" in held.evidence
    (padded,) = (one for one in told if "padded to fill" in one.what)
    assert "%" in padded.evidence


def test_a_sum_over_tensor_of_which_a_part_is_kept_is_told_where_it_is_an_all_reduce():
    told = findings(
        "v5p:2x2x2", MeshConfig(tensor=8), 2048, (None, None, "tensor"), (None, "tensor")
    )
    (found,) = (one for one in told if "where a reduce-scatter would do" in one.what)
    assert found.what.startswith("Activations") and "three dimensions" in found.fix


def test_the_same_step_written_well_has_none_of_these_faults():
    told = findings("v5e:2x4", MESH, 1536, hidden=("fsdp", None, "tensor"), out=("fsdp", "tensor"))
    faults = ("whole on each device", "padded to fill", "a reduce-scatter would do")
    assert not [one for one in told if any(fault in one.what for fault in faults)]
