"""A remat policy decides what is saved, never what is computed."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals

from llama_jax.config import ComputeConfig
from llama_jax.config.run import REMAT_POLICIES
from llama_jax.model import remat
from llama_jax.model.llama import Block
from llama_jax.ops.rope import rope_frequencies, rotation
from tests.model.tiny_model import FLOAT32, MODEL, jit, layout, new_params, random_rows

HAS_HOST_MEMORY = {"device", "pinned_host"} <= {
    memory.kind for memory in jax.devices()[0].addressable_memories()
}


@functools.cache
def gradients(policy: str):
    with layout(fsdp=1):
        graphdef, params = new_params(MODEL, dataclasses.replace(FLOAT32, remat=policy))
        rows = random_rows(0, rows=2)

        def loss(params: nnx.State) -> jax.Array:
            return jnp.mean(jnp.square(nnx.merge(graphdef, params)(*rows)))

        return jax.tree.map(np.asarray, jit(jax.value_and_grad(loss))(params))


@pytest.mark.parametrize("policy", [name for name in REMAT_POLICIES if name != "none"])
def test_every_policy_gives_the_same_gradients(policy):
    if policy.startswith("offload") and not HAS_HOST_MEMORY:
        pytest.skip("no host memory apart from the device's")
    for got, expected in zip(
        jax.tree.leaves(gradients(policy)), jax.tree.leaves(gradients("none")), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)


def names_saved(policy: str, capsys) -> tuple[set[str], int]:
    """Names of what one block saves for its backward pass, and the number of other results."""
    block = Block(MODEL, ComputeConfig(attention="xla"), rngs=nnx.Rngs(0))
    rows = random_rows(1, rows=2)
    turn = rotation(jnp.asarray(rows.positions), rope_frequencies(MODEL.rope, MODEL.head_dim))

    def run(x, block):
        return block(x, turn, jnp.asarray(rows.segments)).sum()

    x = jnp.ones((2, 16, MODEL.embed_dim))
    capsys.readouterr()
    print_saved_residuals(remat.rematerialize(run, policy), x, block)
    printed = capsys.readouterr().out
    inputs = len(re.findall(r"from (the argument|a constant|a literal)", printed))
    return set(re.findall(r"named '(\w+)'", printed)), len(printed.splitlines()) - inputs


def test_each_policy_saves_what_its_name_says(one_device, capsys):
    _, of_none = names_saved("none", capsys)
    assert names_saved("full", capsys) == (set(), 0)
    assert names_saved("attention", capsys) == ({"attention"}, 2)  # with the log-sum-exp
    assert names_saved("qkv", capsys) == ({"attention", "query", "key", "value"}, 5)
    assert names_saved("gate", capsys) == ({"attention", "mlp_gate_up"}, 3)  # one on a CPU
    named, of_dots = names_saved("dots", capsys)
    assert "attention" in named
    assert 1 < of_dots < of_none


@pytest.mark.parametrize("policy", ["offload", "offload_inputs"])
def test_offloading_where_there_is_no_host_memory_is_refused(monkeypatch, policy):
    @dataclasses.dataclass
    class Device:
        kinds: tuple[str, ...]

        def addressable_memories(self):
            return [dataclasses.make_dataclass("Memory", ["kind"])(kind) for kind in self.kinds]

    monkeypatch.setattr(jax, "local_devices", lambda **_: [Device(("unpinned_host",))])
    complaint = rf"compute\.remat='{policy}' needs .* has unpinned_host"
    with pytest.raises(ValueError, match=complaint):
        remat.rematerialize(lambda x: x, policy)
    # A step that is compiled for TPUs asks nothing of the CPU that compiles it.
    monkeypatch.setattr(remat, "platform", lambda: "tpu")
    remat.rematerialize(lambda x: x, policy)
