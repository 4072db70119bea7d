"""What attention may see, whatever computes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import KernelTiles, MeshConfig
from llama_jax.ops.attention import KERNELS, attend, splash
from llama_jax.ops.attention.cudnn import attend_cudnn
from llama_jax.ops.attention.splash import attend_splash
from llama_jax.ops.attention.xla import attend_xla
from llama_jax.sharding import make_mesh, use_layout

B, T, N, K, H = 2, 24, 4, 2, 8


@pytest.fixture(autouse=True)
def _layout(one_device):
    """Attention runs under a layout, of one device unless a test enters another."""


def heads(seed: int, *, T: int = T, K: int = K, H: int = H):
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H))
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def by_hand(q, k, v, segments):
    """Attention in float64, one row and one head at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for b, n in np.ndindex(q.shape[0], q.shape[2]):
        head = n // (q.shape[2] // k.shape[2])
        seen = np.tri(q.shape[1], dtype=bool) & (segments[b][:, None] == segments[b])
        seen &= segments[b] != 0
        weights = np.exp(q[b, :, n] @ k[b, :, head].T / np.sqrt(q.shape[3])) * seen
        out[b, :, n] = weights @ v[b, :, head] / np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    return out


attend_jitted = jax.jit(attend, static_argnames="backend")


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("seq_len", [24, 130, 512], ids=lambda T: f"T{T}")
def test_xla_attention_is_the_formula(num_kv_heads, seq_len):
    q, k, v = heads(0, T=seq_len, K=num_kv_heads)
    cuts = (np.arange(seq_len) * 4) // seq_len
    segments = np.stack([np.array([1, 2, 3, 0])[cuts], np.array([1, 1, 2, 2])[cuts]])
    segments = segments.astype(np.int32)
    mixed = attend_jitted(q, k, v, q_segments=segments, kv_segments=segments)
    np.testing.assert_allclose(mixed, by_hand(q, k, v, segments), atol=1e-5)


@pytest.mark.parametrize("seq_len", [T, 512])
def test_gradients_are_those_of_the_formula(seq_len):
    q, k, v = heads(1, T=seq_len)
    segments = (np.arange(seq_len) >= np.array([[seq_len // 3], [40]])) + 1

    def plain(q, k, v):
        k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
        scores = jnp.einsum("BTNH,BSNH->BNTS", q, k) / np.sqrt(H)
        visible = jnp.tri(seq_len, dtype=bool) & (segments[:, :, None] == segments[:, None])
        weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1)
        return jnp.sum(jnp.einsum("BNTS,BSNH->BTNH", weights, v) ** 2)

    def ours(q, k, v):
        return jnp.sum(attend(q, k, v, q_segments=segments, kv_segments=segments) ** 2)

    for got, expected in zip(
        jax.jit(jax.grad(ours, (0, 1, 2)))(q, k, v),
        jax.jit(jax.grad(plain, (0, 1, 2)))(q, k, v),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_padding_is_zero_and_has_no_gradient():
    q, k, v = heads(2)
    segments = np.tile([0] * 4 + [1] * 16 + [0] * 4, (B, 1))

    def total(q, k, v):
        mixed = attend(q, k, v, q_segments=segments, kv_segments=segments)
        return jnp.sum(jnp.square(mixed)), mixed

    gradients, mixed = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)
    for x in (mixed, *gradients):
        np.testing.assert_array_equal(x[:, :4], 0)
        np.testing.assert_array_equal(x[:, -4:], 0)
        assert np.all(np.isfinite(x))


def test_queries_that_name_their_place_see_the_keys_before_it():
    q, k, v = heads(3)
    segments = np.ones((B, T), np.int32)
    whole = attend_jitted(q, k, v, q_segments=segments, kv_segments=segments)
    places = np.array([[3, 11], [20, 7]])
    picked = np.take_along_axis(q, places[..., None, None], axis=1)
    part = attend_jitted(
        picked, k, v, q_segments=segments[:, :2], kv_segments=segments, q_indices=places
    )
    expected = np.take_along_axis(np.asarray(whole), places[..., None, None], axis=1)
    np.testing.assert_allclose(part, expected, atol=1e-6)


def test_bfloat16_comes_back_close():
    q, k, v = heads(4)
    segments = np.ones((B, T), np.int32)
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    mixed = attend_jitted(*half, q_segments=segments, kv_segments=segments)
    assert mixed.dtype == jnp.bfloat16
    expected = attend_jitted(q, k, v, q_segments=segments, kv_segments=segments)
    np.testing.assert_allclose(mixed.astype(jnp.float32), expected, atol=0.03)


SMALL_TILES = KernelTiles(
    queries=128, keys=256, queries_backward=256, keys_backward=128, keys_at_once=128
)


@pytest.mark.parametrize(
    ("mesh", "group", "tiles"),
    [
        pytest.param(MeshConfig(fsdp=1), 2, SMALL_TILES, id="one device"),
        pytest.param(
            MeshConfig(fsdp=2, context=2, tensor=2), 2, KernelTiles(), marks=pytest.mark.slow
        ),
        pytest.param(MeshConfig(fsdp=1), 4, KernelTiles(), marks=pytest.mark.slow),
    ],
)
def test_splash_attention_equals_xla_on_packed_rows(mesh, group, tiles):
    q, k, v = heads(5, T=256, K=N // group, H=128)
    segments = np.repeat([[1, 2, 3, 0], [1, 1, 1, 2]], 64, axis=1).astype(np.int32)
    real = (segments > 0)[..., None, None]

    def of(backend):
        def total(q, k, v):
            mixed = jnp.where(real, backend(q, k, v, segments, segments), 0)
            return jnp.sum(jnp.square(mixed)), mixed

        return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)

    devices = jax.devices()[: mesh.fsdp * mesh.context * mesh.tensor]
    with use_layout(make_mesh(mesh, devices)):
        splash = of(functools.partial(attend_splash, tiles=tiles, interpret=True))
        xla = of(attend_xla)
    for got, expected in zip(jax.tree.leaves(splash), jax.tree.leaves(xla), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


NEEDS_GPU = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(attend_xla, id="xla"),
        pytest.param(functools.partial(attend_splash, interpret=True), id="splash"),
        pytest.param(attend_cudnn, id="cudnn", marks=NEEDS_GPU),
    ],
)
def test_a_document_has_no_part_in_the_others(backend):
    dtype = jnp.bfloat16 if backend is attend_cudnn else jnp.float32
    inputs = [jnp.asarray(x, dtype) for x in heads(8, T=256, H=128)]
    # Boundaries within a kernel's block, at its edge, and padding at both ends of a row.
    lengths = [[100, 28, 100, 28], [7, 121, 64, 64]]
    names = [[1, 2, 3, 0], [0, 1, 2, 3]]
    segments = np.stack([np.repeat(n, length) for n, length in zip(names, lengths, strict=True)])
    segments = segments.astype(np.int32)
    edited = (segments == 2)[..., None, None]

    def of_others(q, k, v):
        mixed = backend(q, k, v, segments, segments)
        others = jnp.where(edited | (segments == 0)[..., None, None], 0, mixed)
        return jnp.sum(jnp.square(others.astype(jnp.float32))), others

    run = jax.jit(jax.grad(of_others, (0, 1, 2), has_aux=True))
    changed = [jnp.where(edited, 3 * x + 1, x) for x in inputs]
    before, after = run(*inputs), run(*changed)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert np.any(np.asarray(before[1]) != 0)
    for gradient in after[0]:
        np.testing.assert_array_equal(np.where(edited, gradient, 0), 0)


def inputs_of_kernels(jaxpr):
    """Shapes of the arrays that each Pallas kernel of a program reads."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            yield [x.aval.shape for x in eqn.invars]
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from inputs_of_kernels(inner)


@pytest.mark.parametrize(
    ("seq_len", "blocks"),
    [(4096, (1024, 512, 512, 1024, 2048, 512)), (1280, (640, 256, 256, 640, 1280, 256))],
)
def test_tiles_are_cut_to_what_divides_a_row(seq_len, blocks, monkeypatch):
    made = []
    original = splash.kernels.BlockSizes
    monkeypatch.setattr(
        splash.kernels, "BlockSizes", lambda **sizes: made.append(sizes) or original(**sizes)
    )
    tiles = KernelTiles(keys=512, keys_backward=2048, keys_at_once=512)
    q = jax.ShapeDtypeStruct((B, seq_len, N, 128), jnp.float32)
    kv = jax.ShapeDtypeStruct((B, seq_len, K, 128), jnp.float32)
    ids = jax.ShapeDtypeStruct((B, seq_len), jnp.int32)
    jax.eval_shape(functools.partial(attend_splash, tiles=tiles), q, kv, kv, ids, ids)
    (sizes,) = made
    assert tuple(size for name, size in sizes.items() if name.startswith("block")) == blocks


def test_splash_attention_reads_keys_once_for_the_heads_that_share_them():
    q, k, v = heads(9, T=256, H=128)
    segments = np.ones((B, 256), np.int32)
    program = jax.make_jaxpr(attend_splash)(q, k, v, segments, segments)
    (shapes,) = inputs_of_kernels(program.jaxpr)
    assert shapes.count((B, N, 256, 128)) == 1  # queries
    assert shapes.count((B, K, 256, 128)) == 2  # keys and values


@NEEDS_GPU
def test_cudnn_attention_equals_xla_on_packed_rows():
    q, k, v = (x.astype(jnp.bfloat16) for x in heads(6, T=256, H=128))
    segments = jnp.repeat(jnp.array([[1, 2, 3, 0], [1, 1, 1, 2]]), 64, axis=1)
    mixed = {
        backend: attend(q, k, v, q_segments=segments, kv_segments=segments, backend=backend)
        for backend in ("cudnn", "xla")
    }
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in mixed.values()), atol=0.03)


@pytest.mark.parametrize(
    ("dtype", "kernel"),
    [(jnp.float32, "xla"), (jnp.bfloat16, "cudnn"), (jnp.float16, "cudnn")],
)
def test_on_a_gpu_auto_takes_the_kernel_that_takes_the_dtype(monkeypatch, dtype, kernel):
    monkeypatch.setattr("llama_jax.ops.attention.platform", lambda: "gpu")
    for name in ("xla", "cudnn"):
        monkeypatch.setitem(KERNELS, name, lambda q, *_, name=name: used.append(name) or q)
    used = []
    q, k, v = (jnp.asarray(x, dtype) for x in heads(7))
    segments = np.ones((B, T), np.int32)
    attend(q, k, v, q_segments=segments, kv_segments=segments)
    assert used == [kernel]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"backend": "cudnn"}, r"compute\.attention='cudnn' needs an NVIDIA GPU, not cpu"),
        ({"backend": "splash"}, r"compute\.attention='splash' needs a multiple of 128 queries"),
        (
            {"backend": "splash", "q_indices": jnp.zeros((B, T), jnp.int32)},
            r"compute\.attention='splash' cannot attend to a cache",
        ),
    ],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what a CPU refuses")
def test_a_kernel_that_cannot_do_this_is_refused(change, complaint):
    q, k, v = heads(7)
    segments = np.ones((B, T), np.int32)
    with pytest.raises(ValueError, match=complaint):
        attend(q, k, v, q_segments=segments, kv_segments=segments, **change)
