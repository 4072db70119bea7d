"""The mesh decides where numbers live, never what they are."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from llama_jax.config import Llama3Rope
from llama_jax.data.batch import Batch
from llama_jax.model import init_params
from llama_jax.train.step import make_loss_sums
from tests.model.tiny_model import (
    FLOAT32,
    MODEL,
    jit,
    layout,
    new_model,
    new_params,
    pack,
    random_rows,
)

CONFIGS = {
    "untied": MODEL,
    "tied": dataclasses.replace(MODEL, tie_embeddings=True, rope=Llama3Rope(theta=1e4)),
}
FAST = [
    ("untied", {"fsdp": 4, "fsdp_line": 2}),
    ("untied", {"context": 2}),
    ("untied", {"stage": 2, "fsdp": 2, "tensor": 2}),
    ("untied", {"replica": 2, "context": 2, "tensor": 2}),
    ("tied", {"fsdp": 2, "context": 2, "tensor": 2}),
]
SLOW = [
    ("untied", {"fsdp": 2}),
    ("untied", {"fsdp_line": 2}),
    ("untied", {"fsdp": 2, "fsdp_line": 2, "tensor": 2}),
    ("tied", {"replica": 2, "fsdp": 2, "fsdp_line": 2}),
    ("untied", {"tensor": 2}),
    ("untied", {"replica": 2}),
    ("untied", {"context": 8}),
    ("untied", {"replica": 2, "fsdp": 4}),
    ("untied", {"fsdp": 2, "context": 2, "tensor": 2}),
    ("tied", {"fsdp": 8}),
    ("untied", {"stage": 2}),
    ("tied", {"replica": 2, "stage": 2, "context": 2}),
    ("tied", {"tensor": 2}),
    ("tied", {"context": 4}),
    ("tied", {"replica": 2, "fsdp": 2, "tensor": 2}),
]


def batch():
    rng = np.random.default_rng(0)
    lengths = [(16,), (3, 13), (8, 4, 2), (1, 15), (5, 5, 5), (10,), (7, 9), (2, 2, 2, 2)]
    documents = [[rng.integers(0, 64, n).tolist() for n in row] for row in lengths]
    rows = pack(*documents, seq_len=16)
    targets = rng.integers(0, 64, (8, 16), np.int32)
    return rows, targets, (rows.segments > 0).astype(np.float32)


def loss_and_gradients(config, compute=FLOAT32):
    graphdef, params = new_params(config, compute)
    rows, targets, mask = batch()

    compute = dataclasses.replace(compute, loss_chunks=2)
    loss_sums = make_loss_sums(graphdef, compute, z_loss=1e-3)
    whole = Batch(rows.tokens, targets, mask, rows.positions, rows.segments)

    def loss(params: nnx.State) -> jax.Array:
        sums = loss_sums(params, whole)
        return (sums.nats + sums.z) / sums.weight

    return jax.tree.map(np.asarray, jit(jax.value_and_grad(loss))(params))


@functools.cache
def on_one_device(name):
    with layout(fsdp=1):
        return loss_and_gradients(CONFIGS[name])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda x: x if isinstance(x, str) else "-".join(f"{k}{v}" for k, v in x.items()),
)
def test_loss_and_gradients_are_the_same_under_every_layout(name, sizes):
    expected, d_expected = on_one_device(name)
    with layout(**sizes):
        loss, gradients = loss_and_gradients(CONFIGS[name])
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(d_expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max() + 1e-9)


@pytest.mark.parametrize("context", ["all_to_all", pytest.param("ring", marks=pytest.mark.slow)])
def test_a_model_that_recomputes_is_the_same_however_rows_cross_devices(context):
    expected, d_expected = on_one_device("untied")
    with layout(context=2):
        compute = dataclasses.replace(FLOAT32, context=context, remat="attention")
        loss, gradients = loss_and_gradients(CONFIGS["untied"], compute)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(d_expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max() + 1e-9)


def test_stages_that_take_several_rows_at_once_recompute_the_same():
    expected, d_expected = on_one_device("untied")
    with layout(stage=2):
        compute = dataclasses.replace(FLOAT32, stage_rows=2, remat="full")
        loss, gradients = loss_and_gradients(CONFIGS["untied"], compute)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(d_expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max() + 1e-9)


def test_weights_begin_the_same_under_every_layout():
    begun = []
    for sizes in ({"fsdp": 1}, {"fsdp": 2, "context": 2, "tensor": 2}):
        with layout(**sizes):
            begun.append(init_params(MODEL, FLOAT32, 1)[1])
    for one, eight in zip(*map(jax.tree.leaves, begun), strict=True):
        np.testing.assert_array_equal(one, eight)


def test_every_parameter_gets_a_gradient():
    _, gradients = on_one_device("untied")
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.any(gradient != 0), path


def test_devices_that_split_heads_split_the_tokens_between_blocks():
    with layout(context=2, tensor=2):
        streams = jit(lambda model, rows: model.streams(*rows))(new_model(), random_rows(0))
        held = {shard.data.shape for shard in streams.addressable_shards}
    assert held == {(MODEL.num_layers + 1, 8, 16 // 4, MODEL.embed_dim)}


def test_the_embedding_lookup_moves_no_whole_activation(capfd):
    with layout(fsdp=2, context=2, tensor=2):
        loss_and_gradients(CONFIGS["tied"])
    assert "rematerialization" not in capfd.readouterr().err
