"""The chunked loss is the plain one, without its memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import MeshConfig
from llama_jax.ops.cross_entropy import cross_entropy
from llama_jax.sharding import make_mesh, use_layout

B, T, D, V = 4, 16, 24, 72
LAYOUTS = {
    "one device": MeshConfig(fsdp=1),
    "fsdp": MeshConfig(fsdp=4),
    "context": MeshConfig(fsdp=1, context=4),
    "all": MeshConfig(fsdp=2, context=2, tensor=2),
}


def problem():
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((B, T, D), np.float32),
        rng.standard_normal((V, D), np.float32),
        rng.integers(0, V, (B, T), np.int32),
        (rng.random((B, T)) < 0.7).astype(np.float32),
    )


def by_hand(hidden, table, targets, mask, z_loss):
    """The mean loss and its gradients, in float64."""
    hidden, table = hidden.astype(np.float64), table.astype(np.float64)
    logits = hidden @ table.T
    log_z = np.log(np.sum(np.exp(logits), axis=-1))
    one_hot = np.eye(V)[targets]
    weight = mask / mask.sum()
    loss = np.sum(weight * (log_z - np.sum(logits * one_hot, axis=-1) + z_loss * log_z**2))
    softmax = np.exp(logits - log_z[..., None])
    d_logits = weight[..., None] * (softmax * (1 + 2 * z_loss * log_z[..., None]) - one_hot)
    return loss, (d_logits @ table, np.einsum("BTV,BTD->VD", d_logits, hidden))


def chunked_loss(hidden, table, targets, mask, z_loss, num_chunks):
    sums = cross_entropy(hidden, table, targets, mask, num_chunks=num_chunks, z_loss=z_loss)
    return (sums.nats + sums.z) / sums.weight


loss_alone = jax.jit(chunked_loss, static_argnums=(4, 5))
loss_and_gradients = jax.jit(jax.value_and_grad(chunked_loss, (0, 1)), static_argnums=(4, 5))


def layout(name):
    mesh = LAYOUTS[name]
    return use_layout(make_mesh(mesh, jax.devices()[: mesh.fsdp * mesh.context * mesh.tensor]))


@pytest.mark.parametrize(
    ("where", "num_chunks"),
    [
        ("one device", 1),
        ("one device", 2),
        ("one device", 8),
        ("fsdp", 4),
        ("context", 2),
        ("all", 1),
        ("all", 4),
    ],
)
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_value_and_gradients_are_those_of_the_plain_formula(where, num_chunks, z_loss):
    hidden, table, targets, mask = problem()
    expected, d_expected = by_hand(hidden, table, targets, mask, z_loss)
    with layout(where):
        value, gradients = loss_and_gradients(hidden, table, targets, mask, z_loss, num_chunks)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, wanted in zip(gradients, d_expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * float(np.abs(wanted).max()) + 1e-7)


def test_sums_are_reported_apart(one_device):
    hidden, table, targets, mask = problem()
    total = jax.jit(cross_entropy, static_argnames=("num_chunks", "z_loss"))
    sums = total(hidden, table, targets, mask, num_chunks=2, z_loss=0.01)
    nats = by_hand(hidden, table, targets, mask, 0.0)[0] * mask.sum()
    both = by_hand(hidden, table, targets, mask, 0.01)[0] * mask.sum()
    np.testing.assert_allclose(sums.nats, nats, rtol=1e-5)
    np.testing.assert_allclose(sums.z, both - nats, rtol=1e-4)
    assert sums.weight == mask.sum()


def test_what_the_mask_leaves_out_changes_nothing(one_device):
    hidden, table, targets, mask = problem()
    edited = np.where(mask == 0, (targets + 5) % V, targets)
    moved = hidden + 10 * (mask == 0)[..., None]
    before = loss_and_gradients(hidden, table, targets, mask, 0.01, 4)
    after = loss_and_gradients(moved, table, edited, mask, 0.01, 4)
    np.testing.assert_allclose(before[0], after[0], rtol=1e-6)
    np.testing.assert_allclose(before[1][1], after[1][1], atol=1e-6)
    np.testing.assert_array_equal(after[1][0][mask == 0], 0)


def test_the_loss_alone_is_the_loss_beside_gradients(one_device):
    arguments = (*problem(), 0.01, 4)
    np.testing.assert_allclose(loss_alone(*arguments), loss_and_gradients(*arguments)[0], rtol=1e-6)


def test_a_mask_of_nothing_has_no_gradient(one_device):
    hidden, table, targets, _ = problem()

    def nats(hidden, table):
        return cross_entropy(hidden, table, targets, np.zeros((B, T), "f4"), num_chunks=2).nats

    value, gradients = jax.jit(jax.value_and_grad(nats, (0, 1)))(hidden, table)
    assert value == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def shapes_in(compiled: str) -> set[tuple[int, ...]]:
    """Shapes of all the arrays of a compiled program."""
    found = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", compiled)
    return {tuple(int(size) for size in shape.split(",")) for shape in found}


@pytest.mark.parametrize("where", ["one device", "all"])
@pytest.mark.parametrize("num_chunks", [1, 4])
def test_only_one_chunk_of_logits_is_ever_live(where, num_chunks):
    hidden, table, targets, mask = problem()
    with layout(where):
        compiled = loss_and_gradients.lower(
            hidden, table, targets, mask, 0.01, num_chunks
        ).compile()
    mesh = LAYOUTS[where]
    logits = B * T * V // (mesh.fsdp * mesh.context * mesh.tensor)
    largest = max(
        int(np.prod(shape)) for shape in shapes_in(compiled.as_text()) if V // mesh.tensor in shape
    )
    assert largest == max(logits // num_chunks, V * D // mesh.tensor)


def test_gradients_cost_three_matmuls_with_the_table(one_device):
    hidden, table, targets, mask = problem()
    for loss, matmuls in ((loss_alone, 1), (loss_and_gradients, 3)):
        program = jax.make_jaxpr(loss, static_argnums=(4, 5))(hidden, table, targets, mask, 0.0, 2)
        assert str(program).count("dot_general") == matmuls


def test_bfloat16_keeps_the_gradient_of_the_table_in_float32(one_device):
    hidden, table, targets, mask = problem()
    half = jnp.asarray(hidden, jnp.bfloat16)
    value, (d_hidden, d_table) = loss_and_gradients(half, table, targets, mask, 0.0, 8)
    assert (d_hidden.dtype, d_table.dtype) == (jnp.bfloat16, jnp.float32)
    expected, (_, d_expected) = by_hand(hidden, table, targets, mask, 0.0)
    np.testing.assert_allclose(value, expected, rtol=0.01)
    np.testing.assert_allclose(d_table, d_expected, atol=0.03 * float(np.abs(d_expected).max()))


def test_chunks_that_do_not_fit_a_device_are_refused(eight_devices):
    with pytest.raises(ValueError, match=r"compute\.loss_chunks=16 must divide the 8 tokens"):
        cross_entropy(*problem(), num_chunks=16)
