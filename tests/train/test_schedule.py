"""Learning rates at the knots of every schedule, and what a plateau promises."""

import numpy as np
import pytest

from llama_jax.config import Cosine, Linear, WarmupStableDecay
from llama_jax.train.schedule import make_schedule

PEAK = 0.5


def curve(schedule, num_steps):
    """Learning rates of all updates, and of the one that would follow."""
    at = make_schedule(schedule, peak_lr=PEAK, num_steps=num_steps)
    return np.array([at(step) for step in range(num_steps + 1)])


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(warmup_steps=4),
        Linear(warmup_steps=4),
        WarmupStableDecay(warmup_steps=4, decay_steps=6),
    ],
)
def test_the_warmup_moves_at_once_and_ends_at_the_peak(schedule):
    rates = curve(schedule, 20)
    np.testing.assert_allclose(rates[:4], PEAK * np.array([0.25, 0.5, 0.75, 1.0]), rtol=1e-6)
    assert rates.max() == PEAK


@pytest.mark.parametrize(
    ("schedule", "halfway"),
    [
        (Cosine(warmup_steps=4, final_fraction=0.1), 0.1 + 0.9 * 0.5),
        (Linear(warmup_steps=4, final_fraction=0.2), 0.2 + 0.8 * 0.5),
        (
            WarmupStableDecay(warmup_steps=2, decay_steps=16, final_fraction=0.1),
            0.1 + 0.9 * 0.292893,
        ),
    ],
)
def test_the_descent_has_its_published_shape(schedule, halfway):
    rates = curve(schedule, 20)
    np.testing.assert_allclose(rates[4], PEAK, rtol=1e-6)
    np.testing.assert_allclose(rates[12], PEAK * halfway, rtol=1e-5)
    np.testing.assert_allclose(rates[20], PEAK * schedule.final_fraction, rtol=1e-5)
    assert (np.diff(rates[4:]) < 0).all()


def test_the_cosine_is_a_cosine():
    rates = curve(Cosine(warmup_steps=0, final_fraction=0.0), 12)
    expected = PEAK * 0.5 * (1 + np.cos(np.pi * np.arange(13) / 12))
    np.testing.assert_allclose(rates, expected, atol=1e-7)


def test_the_last_update_moves_even_when_the_descent_goes_to_zero():
    assert curve(Linear(warmup_steps=0, final_fraction=0.0), 10)[9] > 0


def test_a_plateau_does_not_depend_on_the_length_of_the_run():
    short = curve(WarmupStableDecay(warmup_steps=3, decay_steps=5), 20)
    long = curve(WarmupStableDecay(warmup_steps=3, decay_steps=10), 500)
    other_end = WarmupStableDecay(warmup_steps=3, decay_steps=5, final_fraction=0.3)
    np.testing.assert_array_equal(short[:16], long[:16])
    np.testing.assert_array_equal(short[:16], curve(other_end, 20)[:16])
    assert (short[3:16] == PEAK).all()
    assert short[16] < PEAK


def test_without_warmup_and_descent_the_peak_is_everywhere():
    rates = curve(WarmupStableDecay(warmup_steps=0, decay_steps=0), 5)
    np.testing.assert_array_equal(rates[:5], PEAK)
