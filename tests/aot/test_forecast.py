"""A program over memory is answered with what should fit."""

import pytest

from llama_jax.aot.forecast import Demand, forecast_fit

GIB = 1 << 30


def forecast(state, rows, needed, limit, remat="attention"):
    demand = Demand(state_bytes=state * GIB, rows_per_chip=rows, remat=remat, num_chips=16)
    return forecast_fit(demand, needed * GIB, limit * GIB)


def test_activations_shrink_with_the_rows_and_the_state_does_not():
    told = forecast(state=5, rows=4, needed=25, limit=15.75)
    assert "25.00 GiB" in told
    assert "9.25 GiB too many" in told
    assert "--rows-per-chip 2 " in told
    assert "--compute.remat full" in told


def test_less_than_a_row_a_chip_is_a_power_of_two():
    assert "--rows-per-chip 0.25 " in forecast(state=5, rows=1, needed=35, limit=15, remat="full")


def test_no_rows_help_where_the_state_alone_is_too_large():
    told = forecast(state=30, rows=4, needed=60, limit=16)
    assert "at least 38 chips" in told
    assert "rows-per-chip" not in told


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_full_remat_is_advised_to_those_who_have_it_not(remat):
    assert ("remat full" in forecast(5, 4, 20, 16, remat)) == (remat != "full")


def test_a_compiler_that_tells_no_size_is_answered_too():
    assert "fewer rows" in forecast(5, 4, 0, 0)
