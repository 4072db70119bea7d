"""Rotary positions, against numbers worked out by hand and by an independent rule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import LinearRope, Llama3Rope, PlainRope
from llama_jax.ops.rope import apply_rope, rope_frequencies, rotation


def test_plain_frequencies_are_the_published_ones():
    # theta**(-2i/H) for H = 8 and theta = 10,000.
    expected = [1.0, 0.1, 0.01, 0.001]
    np.testing.assert_allclose(rope_frequencies(PlainRope(theta=1e4), 8), expected, rtol=1e-6)


def test_linear_scaling_divides_every_frequency():
    expected = [0.25, 0.025, 0.0025, 0.00025]
    frequencies = rope_frequencies(LinearRope(theta=1e4, factor=4.0), 8)
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)


def test_llama3_scaling_stretches_long_wavelengths_alone():
    # H = 8, theta = 10,000, original context 1000: the planes turn 159.15, 15.915, 1.5915 and
    # 0.15915 times in it. The first two (>= 4 turns) stay, the last (<= 1) is divided by 8, the
    # third keeps the share (1.5915 - 1) / (4 - 1) = 0.19718 of its frequency 0.01.
    rope = Llama3Rope(theta=1e4, factor=8.0, original_seq_len=1000)
    between = 0.19718 * 0.01 + (1 - 0.19718) * 0.01 / 8
    expected = [1.0, 0.1, between, 0.001 / 8]
    np.testing.assert_allclose(rope_frequencies(rope, 8), expected, rtol=1e-5)


def test_llama31_frequencies_at_the_published_shape():
    # Every wavelength beyond 8192 tokens is 8 times longer, every one below 2048 is untouched.
    plain, scaled = (rope_frequencies(r, 128) for r in (PlainRope(theta=5e5), Llama3Rope()))
    wavelengths = 2 * math.pi / plain
    np.testing.assert_allclose(scaled[wavelengths > 8192], plain[wavelengths > 8192] / 8)
    np.testing.assert_array_equal(scaled[wavelengths < 2048], plain[wavelengths < 2048])
    between = (wavelengths >= 2048) & (wavelengths <= 8192)
    assert between.sum() == 6
    assert np.all((scaled < plain)[between])
    assert np.all((scaled > plain / 8)[between])


def test_planes_are_halves_of_a_head():
    # A quarter turn of the first plane of H = 4 takes channel 0 to channel 2.
    x = jnp.array([1.0, 0, 0, 0]).reshape(1, 1, 1, 4)
    turn = rotation(jnp.ones((1, 1), jnp.int32), np.array([math.pi / 2, 0], np.float32))
    np.testing.assert_allclose(apply_rope(x, turn)[0, 0, 0], [0, 0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("rope", [PlainRope(), LinearRope(factor=2.0), Llama3Rope()])
def test_scores_depend_on_distance_alone(rope):
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    frequencies = rope_frequencies(rope, 16)

    def score(q_position: int, k_position: int) -> float:
        q_turn, k_turn = (
            rotation(jnp.full((1, 1), position, jnp.int32), frequencies)
            for position in (q_position, k_position)
        )
        return float(jnp.sum(apply_rope(q, q_turn) * apply_rope(k, k_turn)))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


def test_rotation_is_computed_in_float32_whatever_the_dtype():
    # bfloat16 cannot tell position 1000 from 1001.
    x = jnp.ones((1, 2, 1, 4), jnp.bfloat16)
    turn = rotation(jnp.array([[1000, 1001]]), rope_frequencies(PlainRope(), 4))
    rotated = apply_rope(x, turn)
    assert rotated.dtype == jnp.bfloat16
    assert not np.allclose(rotated[0, 0], rotated[0, 1], atol=0.1)
