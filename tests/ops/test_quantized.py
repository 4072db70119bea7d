"""Projections in 8 bits: close to the exact ones, in 8 bits indeed, and refused without qwix."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from llama_jax.config import AdamW, ComputeConfig
from llama_jax.model import abstract_params
from llama_jax.ops.project import project
from tests.train.tiny_run import MODEL, counting_batch, on_mesh, start, tiny_config

FORMATS = {"int8": 0.02, "fp8": 0.05}  # and how far a projection may be off, of its size
SHAPES = [((2, 16, 64), (64, 2, 48)), ((2, 16, 4, 8), (4, 8, 64))]


@pytest.fixture
def _qwix():
    pytest.importorskip("qwix")


def gradients(x, weight, d_out, matmul):
    out, pull = jax.vjp(functools.partial(project, matmul=matmul), x, weight)
    return (out, *pull(d_out))


@pytest.mark.usefixtures("_qwix", "one_device")
@pytest.mark.parametrize("shapes", SHAPES, ids=["into two", "from two"])
@pytest.mark.parametrize("matmul", FORMATS)
def test_a_projection_in_8_bits_is_close(matmul, shapes):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in shapes)
    x[0] *= 100  # a token has a scale of its own: a large one does not coarsen the others
    d_out = rng.standard_normal((2, 16, *shapes[1][len(shapes[0]) - 2 :]), np.float32)
    got, exact = (
        jax.jit(gradients, static_argnums=3)(x, weight, d_out, m) for m in (matmul, "dtype")
    )
    for row in (0, 1):
        off = np.linalg.norm(got[0][row] - exact[0][row]) / np.linalg.norm(exact[0][row])
        assert 0 < off < FORMATS[matmul]
    off = np.linalg.norm(got[1] - exact[1]) / np.linalg.norm(exact[1])
    assert 0 < off < 1.5 * FORMATS[matmul]
    np.testing.assert_allclose(got[2], exact[2], rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("_qwix", "one_device")
@pytest.mark.parametrize(("matmul", "operands"), [("int8", "i8"), ("fp8", "f8_e4m3fn")])
def test_the_matmul_itself_is_in_8_bits(matmul, operands):
    x, weight = jnp.ones((2, 4, 8)), jnp.ones((8, 6))
    program = str(jax.make_jaxpr(functools.partial(project, matmul=matmul))(x, weight))
    multiplied = [line for line in program.splitlines() if "dot_general" in line]
    assert len(multiplied) == 1
    assert f"{operands}[2,4,8]" in program and f"{operands}[8,6]" in program


@pytest.mark.usefixtures("_qwix", "one_device")
def test_every_projection_of_a_block_is_in_8_bits():
    graphdef, params = abstract_params(MODEL, ComputeConfig(matmul="int8", remat="none"))
    tokens = jnp.ones((1, 16), jnp.int32)

    def hidden(params):
        return nnx.merge(graphdef, params).hidden(tokens, tokens, tokens)

    program = str(jax.make_jaxpr(hidden)(params))
    # Query, key, value, out, gate beside up, and down; both layers are calls of the same program.
    assert program.count("preferred_element_type=int32") == 6


def test_8_bits_without_qwix_are_refused_by_name(monkeypatch, one_device):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ValueError, match=r"compute\.matmul='int8' needs qwix: pip install"):
        project(jnp.ones((1, 2, 4)), jnp.ones((4, 4)), "int8")


@pytest.mark.slow
@pytest.mark.usefixtures("_qwix")
def test_three_hundred_updates_in_8_bits_reach_the_loss_of_float32(one_device):
    final = {}
    for matmul in ("dtype", *FORMATS):
        config = tiny_config(optimizer=AdamW(peak_lr=1e-2), compute__matmul=matmul)
        state, step = start(config)
        losses = []
        for seed in range(300):
            rate = np.float32(1e-2 * min(1, (seed + 1) / 20))
            state, metrics = step(state, on_mesh(counting_batch(seed), one_device), rate)
            losses.append(metrics["loss_nats_per_token"])
        final[matmul] = np.mean(losses[-30:])
    for matmul in FORMATS:
        np.testing.assert_allclose(final[matmul], final["dtype"], atol=0.05, err_msg=str(final))
