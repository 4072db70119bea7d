"""Rows that devices split are mixed as one device would mix them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ComputeConfig, MeshConfig
from llama_jax.ops.attention import attend, blocks
from llama_jax.ops.attention.all_to_all import attend_all_to_all
from llama_jax.ops.attention.splash import attend_splash
from llama_jax.sharding import make_mesh, use_layout

B, T, N, H = 2, 64, 8, 8
# Documents that cross one boundary of shards, all of them, and none; padding at both ends.
SEGMENTS = np.stack(
    [np.repeat([1, 2, 3, 0], [5, 46, 9, 4]), np.repeat([0, 1, 2], [3, 13, 48])]
).astype(np.int32)
MESHES = {
    "context 2": MeshConfig(fsdp=1, context=2),
    "context 4": MeshConfig(fsdp=1, context=4),
    "context 8": MeshConfig(fsdp=1, context=8),
    "fsdp 2, context 2, tensor 2": MeshConfig(fsdp=2, context=2, tensor=2),
    "context 4, tensor 2": MeshConfig(fsdp=1, context=4, tensor=2),
}


def layout(name):
    sizes = MESHES[name]
    devices = jax.devices()[: sizes.fsdp * sizes.context * sizes.tensor]
    return use_layout(make_mesh(sizes, devices))


def heads(seed, *, K, T=T, H=H):
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H))
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def outputs_and_gradients(mix, q, k, v, weights):
    def total(q, k, v):
        mixed = mix(q, k, v)
        return jnp.sum(mixed * weights), mixed

    # Compiling is nearly all of these tests' time, and LLVM's part of it changes no claim.
    quickly = {"xla_backend_optimization_level": 0}
    run = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True), compiler_options=quickly)
    gradients, mixed = run(q, k, v)
    return jax.tree.map(np.asarray, (mixed, *gradients))


def mix_packed(context):
    return functools.partial(attend, q_segments=SEGMENTS, kv_segments=SEGMENTS, context=context)


@functools.cache
def on_one_device(num_kv_heads):
    with use_layout(make_mesh(MeshConfig(), jax.devices()[:1])):
        return outputs_and_gradients(mix_packed("gather"), *heads(0, K=num_kv_heads))


@pytest.mark.parametrize("context", ["gather", "all_to_all", "ring"])
@pytest.mark.parametrize(
    ("mesh", "num_kv_heads"),
    [
        ("context 4, tensor 2", 2),
        pytest.param("context 2", 2, marks=pytest.mark.slow),
        pytest.param("context 4", 2, marks=pytest.mark.slow),
        pytest.param("fsdp 2, context 2, tensor 2", 8, marks=pytest.mark.slow),
        pytest.param("context 8", 1, marks=pytest.mark.slow),
        pytest.param("context 8", 8, marks=pytest.mark.slow),
    ],
)
def test_split_rows_give_the_outputs_and_gradients_of_one_device(mesh, num_kv_heads, context):
    with layout(mesh):
        split = outputs_and_gradients(mix_packed(context), *heads(0, K=num_kv_heads))
    for got, expected in zip(split, on_one_device(num_kv_heads), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_an_all_to_all_leaves_no_device_with_all_the_keys():
    q, k, v, _ = heads(1, K=8)
    with layout("context 4"):
        text = {
            context: jax.jit(mix_packed(context)).lower(q, k, v).compile().as_text()
            for context in ("gather", "all_to_all")
        }
    assert "all-to-all" in text["all_to_all"]
    whole = f"f32[{B},{T},8,{H}]"
    for context, program in text.items():
        made = [line for line in program.splitlines() if f"= {whole}" in line]
        assert bool([line for line in made if "parameter" not in line]) == (context == "gather")


@pytest.mark.parametrize("context", ["all_to_all", "ring"])
def test_a_document_has_no_part_in_the_others(context):
    q, k, v, weights = heads(4, K=2)
    edited = (SEGMENTS == 2)[..., None, None]
    others = (SEGMENTS != 2)[..., None, None]
    with layout("context 2"):
        mix = mix_packed(context)
        before = outputs_and_gradients(mix, q, k, v, weights * others)
        after = outputs_and_gradients(
            mix, *(np.where(edited, 3 * x + 1, x) for x in (q, k, v)), weights * others
        )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.where(others, one, 0), np.where(others, other, 0))
    for gradient in after[1:]:
        np.testing.assert_array_equal(np.where(edited, gradient, 0), 0)


def test_a_ring_sends_keys_in_pieces_and_holds_no_scores_of_a_row():
    q, k, v, _ = heads(1, K=8)
    with layout("context 4"):
        text = jax.jit(mix_packed("ring")).lower(q, k, v).compile().as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text and "all-to-all" not in text
    assert not re.search(rf"\b{T},{T}\b|f32\[{B},{T},8,{H}\]", text.split("ENTRY")[0])


@pytest.mark.slow
def test_splash_mixes_whole_rows_after_an_all_to_all():
    q, k, v, weights = heads(2, K=2, T=256, H=128)
    segments = np.repeat([[1, 2, 2, 0], [1, 1, 1, 2]], 64, axis=1).astype(np.int32)

    def exchanged(q, k, v):
        kernel = functools.partial(attend_splash, interpret=True)
        mixed = attend_all_to_all(kernel, q, k, v, segments)
        return jnp.where((segments > 0)[..., None, None], mixed, 0)

    plain = functools.partial(attend, q_segments=segments, kv_segments=segments)
    with layout("fsdp 2, context 2, tensor 2"):
        got = outputs_and_gradients(exchanged, q, k, v, weights)
    with use_layout(make_mesh(MeshConfig(), jax.devices()[:1])):
        expected = outputs_and_gradients(plain, q, k, v, weights)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_long_pieces_are_mixed_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 4)
    with layout("context 2"):
        split = outputs_and_gradients(mix_packed("ring"), *heads(0, K=2))
    for got, expected in zip(split, on_one_device(2), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_rows_that_a_ring_cannot_cut_evenly_are_refused():
    q, k, v, _ = heads(3, K=2, T=60)
    ids = SEGMENTS[:, :60]
    with (
        layout("context 8"),
        pytest.raises(ValueError, match=r"data\.seq_len=60 must be a multiple of 16"),
    ):
        attend(q, k, v, q_segments=ids, kv_segments=ids, context="ring")


def test_a_kernel_that_a_ring_would_not_use_is_refused():
    with pytest.raises(ValueError, match=r"compute\.attention='splash' is not used with"):
        ComputeConfig(attention="splash", context="ring")


def test_heads_that_do_not_divide_among_the_devices_are_refused():
    q, k, v, _ = heads(3, K=2)
    with (
        layout("context 4, tensor 2"),
        pytest.raises(ValueError, match=r"model\.num_heads=4 must be a multiple of mesh\.tensor=2"),
    ):
        mix_packed("all_to_all")(q[:, :, :4], k, v)
