import jax
import jax.numpy as jnp
import pytest

from llama_jax.model.mlp import swiglu


def plain(gate_up):
    return jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_gradient_of_swiglu_is_that_of_its_definition(scale):
    gate_up, d_out = scale * jax.random.normal(jax.random.key(0), (2, 2, 3, 2, 5))
    d_out = d_out[..., 0, :]

    out, pull = jax.vjp(swiglu, gate_up)
    expected, pull_expected = jax.vjp(plain, gate_up)

    assert jnp.allclose(out, expected)
    assert jnp.allclose(pull(d_out)[0], pull_expected(d_out)[0], rtol=1e-5, atol=1e-5 * scale**2)


def test_swiglu_keeps_the_dtype():
    assert swiglu(jnp.ones((1, 1, 2, 4), jnp.bfloat16)).dtype == jnp.bfloat16
