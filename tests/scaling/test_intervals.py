"""Intervals have the level of their source, and hold where the constants are drawn anew."""

import math

import numpy as np
import pytest

from llama_jax.scaling.intervals import by_constants, by_exponent, constants_ends, level
from llama_jax.scaling.published import (
    BESIROGLU,
    CHINCHILLA_1,
    CHINCHILLA_2,
    CHINCHILLA_3,
    LLAMA_3,
)
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import ServingDemand, cheapest_within


def at(flops):
    return lambda law: {"params": law.optimum(flops).params, "tokens": law.optimum(flops).tokens}


def test_brackets_of_chinchillas_table_2_are_of_80_percent():
    for law in (CHINCHILLA_1, CHINCHILLA_2, CHINCHILLA_3):
        assert level(law) == 0.80
        assert by_exponent(law, at(1e21))["params"].level == 0.80
    assert level(BESIROGLU) == by_constants(BESIROGLU, at(1e21))["params"].level == 0.95
    assert level(LLAMA_3) == 0
    assert by_exponent(LLAMA_3, at(1e21)) == {}


def test_an_exponents_interval_is_widest_away_from_the_data():
    far_low, far_high, _ = by_exponent(CHINCHILLA_1, at(1e25))["params"]
    assert far_low < CHINCHILLA_1.optimum(1e25).params < far_high
    near_low, near_high, _ = by_exponent(CHINCHILLA_1, at(1.5e20))["params"]
    assert near_high / near_low < 1.01 < far_high / far_low


def test_more_parameters_within_a_budget_are_fewer_tokens():
    for ends in (by_constants(BESIROGLU, at(1e22)), by_exponent(CHINCHILLA_2, at(1e22))):
        (few, many, _), (short, long, _) = ends["params"], ends["tokens"]
        assert few * long == pytest.approx(1e22 / 6)
        assert many * short == pytest.approx(1e22 / 6)


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(lambda law: law.optimum(1e22), id="a budget"),
        pytest.param(lambda law: law.optimum_for_loss(2.2), id="a loss"),
        pytest.param(lambda law: law.optimum_for_params(7e9), id="a size"),
        pytest.param(
            lambda law: cheapest_within(law, 1e22, ServingDemand(output_tokens=1e13)), id="served"
        ),
        pytest.param(
            lambda law: DataLimit(unique_tokens=1e10).optimum(law, 1e22), id="data that run out"
        ),
    ],
)
def test_95_of_100_laws_of_drawn_constants_choose_within_the_interval(choose):
    interval = by_constants(BESIROGLU, lambda law: {"tokens": choose(law).tokens})["tokens"]
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(BESIROGLU.vector(), BESIROGLU.covariance, size=300)
    tokens = [choose(BESIROGLU.with_vector(tuple(map(float, draw)))).tokens for draw in draws]
    inside = np.mean([interval.low < value < interval.high for value in tokens])
    assert 0.91 < inside < 0.99


def test_both_ends_of_a_law_are_the_ends_of_the_interval():
    def balance(law):
        by_params, by_tokens = law.elasticities(7e9, 1e12)
        return by_params / by_tokens

    low, high, _ = by_constants(BESIROGLU, lambda law: {"balance": balance(law)})["balance"]
    less, more = constants_ends(BESIROGLU, balance)
    assert balance(less) == pytest.approx(low, rel=0.02)
    assert balance(more) == pytest.approx(high, rel=0.02)
    assert constants_ends(CHINCHILLA_3, balance) == ()


def test_constants_that_hold_nothing_give_an_interval_of_anything():
    wide = np.array(BESIROGLU.covariance) * 1e4
    vague = type(BESIROGLU)(
        **{name: getattr(BESIROGLU, name) for name in ("about", "E", "A", "B", "alpha", "beta")},
        covariance=tuple(map(tuple, wide.tolist())),
    )
    ends = by_constants(vague, at(1e25))["params"]
    assert (ends.low, ends.high) == (0.0, math.inf)
