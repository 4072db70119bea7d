"""Rows that devices split are mixed as one device would mix them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import MeshConfig
from llama_jax.ops.attention import attend
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

    gradients, mixed = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)
    return jax.tree.map(np.asarray, (mixed, *gradients))


def mix_packed(context):
    return functools.partial(attend, q_segments=SEGMENTS, kv_segments=SEGMENTS, context=context)


@functools.cache
def on_one_device(num_kv_heads):
    with use_layout(make_mesh(MeshConfig(), jax.devices()[:1])):
        return outputs_and_gradients(mix_packed("gather"), *heads(0, K=num_kv_heads))


@pytest.mark.parametrize("context", ["gather", "all_to_all"])
@pytest.mark.parametrize(
    ("mesh", "num_kv_heads"),
    [
        ("context 2", 2),
        ("context 4", 2),
        ("fsdp 2, context 2, tensor 2", 8),
        ("context 4, tensor 2", 2),
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


def test_heads_that_do_not_divide_among_the_devices_are_refused():
    q, k, v, _ = heads(3, K=2)
    with (
        layout("context 4, tensor 2"),
        pytest.raises(ValueError, match=r"model\.num_heads=4 must be a multiple of mesh\.tensor=2"),
    ):
        mix_packed("all_to_all")(q[:, :, :4], k, v)
