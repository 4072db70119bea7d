"""What sampling draws, judged by counting many draws under fixed keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.infer.sampling import Sampling, sample

DRAWS = 20_000
PROBABILITIES = np.array([0.05, 0.4, 0.0, 0.3, 0.15, 0.1])


def frequencies(sampling: Sampling, probabilities=PROBABILITIES, seed: int = 0) -> np.ndarray:
    logits = jnp.log(jnp.tile(jnp.asarray(probabilities, jnp.float32), (DRAWS, 1)))
    drawn = sample(logits, jax.random.split(jax.random.key(seed), DRAWS), sampling)
    return np.bincount(np.asarray(drawn), minlength=len(probabilities)) / DRAWS


def assert_close(seen: np.ndarray, expected: np.ndarray) -> None:
    # Five standard deviations of a frequency over this many draws.
    np.testing.assert_allclose(seen, expected, atol=5 * 0.5 / np.sqrt(DRAWS))
    np.testing.assert_array_equal(seen[expected == 0], 0)


def renormalised(*kept: int, power: float = 1.0) -> np.ndarray:
    weights = np.zeros_like(PROBABILITIES)
    weights[list(kept)] = PROBABILITIES[list(kept)] ** power
    return weights / weights.sum()


def test_the_defaults_draw_from_the_models_own_distribution():
    assert_close(frequencies(Sampling()), PROBABILITIES)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_raises_probabilities_to_its_inverse(temperature):
    expected = renormalised(0, 1, 3, 4, 5, power=1 / temperature)
    assert_close(frequencies(Sampling(temperature=temperature)), expected)


def test_top_k_keeps_the_k_most_probable():
    assert_close(frequencies(Sampling(top_k=2)), renormalised(1, 3))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        pytest.param(1e-6, [1], id="the most probable token is always kept"),
        pytest.param(0.39, [1], id="one token reaches the sum"),
        pytest.param(0.41, [1, 3], id="the token that crosses the sum is kept"),
        pytest.param(0.8, [1, 3, 4], id="three tokens reach the sum"),
        pytest.param(0.999, [0, 1, 3, 4, 5], id="the impossible token stays out"),
        pytest.param(1.0, [0, 1, 3, 4, 5], id="all"),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p, kept):
    assert_close(frequencies(Sampling(top_p=top_p)), renormalised(*kept))


def test_top_p_counts_what_top_k_left():
    # Of tokens 1, 3 and 4 alone, the first has 0.47 and the first two 0.82.
    assert_close(frequencies(Sampling(top_k=3, top_p=0.45)), renormalised(1))
    assert_close(frequencies(Sampling(top_k=3, top_p=0.81)), renormalised(1, 3))


def test_top_p_counts_after_temperature():
    # At temperature 0.5 the first two have 0.81 of the weight, at 1 only 0.7.
    assert_close(frequencies(Sampling(temperature=0.5, top_p=0.8)), renormalised(1, 3, power=2))


def test_ties_at_the_edge_keep_the_lower_ids():
    uniform = np.full(4, 0.25)
    assert set(np.flatnonzero(frequencies(Sampling(top_k=2), uniform))) == {0, 1}
    assert set(np.flatnonzero(frequencies(Sampling(top_p=0.6), uniform))) == {0, 1, 2}


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(top_k=1)])
def test_greedy_takes_the_most_probable(sampling):
    logits = jax.random.normal(jax.random.key(0), (64, 33))
    drawn = sample(logits, jax.random.split(jax.random.key(1), 64), sampling)
    np.testing.assert_array_equal(drawn, np.argmax(logits, axis=-1))


def test_a_tiny_temperature_neither_overflows_nor_strays():
    logits = jnp.array([[1e4, 2e4, -3e4]])
    drawn = sample(logits, jax.random.key(0)[None], Sampling(temperature=1e-35, top_p=0.9))
    assert drawn.tolist() == [1]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(top_p=0.9)])
def test_a_row_depends_on_its_own_key_alone(sampling):
    logits = jax.random.normal(jax.random.key(0), (16, 50))
    keys = jax.random.split(jax.random.key(1), 16)
    together = sample(logits, keys, sampling)
    alone = [sample(logits[i : i + 1], keys[i : i + 1], sampling)[0] for i in range(16)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], sample(logits[::-1], keys[::-1], sampling))


def test_more_candidates_than_tokens_allows_all():
    np.testing.assert_array_equal(frequencies(Sampling(top_k=99)), frequencies(Sampling()))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"temperature": -1.0}, r"sampling\.temperature=-1\.0 must be zero or more"),
        ({"temperature": float("nan")}, r"sampling\.temperature=nan must be zero or more"),
        ({"top_k": -1}, r"sampling\.top_k=-1 must be zero or more"),
        ({"top_p": 0.0}, r"sampling\.top_p=0\.0 must be in \(0, 1\]"),
        ({"top_p": 1.5}, r"sampling\.top_p=1\.5 must be in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Sampling(**change)
