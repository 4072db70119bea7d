"""What repeated tokens are worth comes back from runs that were made with it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from llama_jax.scaling.fit_repeated import fit_repeated
from llama_jax.scaling.published import MUENNIGHOFF
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.runs import make_runs, read_runs

DATA = Path(__file__).parents[3] / "shared" / "scaling"


def muennighoffs_runs(epochs=(1, 2, 5, 15, 50)):
    axes = np.meshgrid(np.logspace(7.5, 9.8, 5), np.logspace(8.5, 10.5, 4), epochs)
    N, U, E = (values.ravel() for values in axes)
    losses = [
        DataLimit(unique_tokens=u).loss(MUENNIGHOFF, n, u * e)
        for n, u, e in zip(N, U, E, strict=True)
    ]
    return dataclasses.replace(make_runs(N, U * E, losses), unique_tokens=U)


def test_muennighoffs_constants_come_back():
    fit = fit_repeated(muennighoffs_runs(), resamples=0)
    assert fit.token_decay == pytest.approx(15.387756, rel=1e-4)
    assert fit.param_decay == pytest.approx(5.309743, rel=1e-4)
    assert fit.law.alpha == fit.law.beta == pytest.approx(0.3526596, rel=1e-4)
    assert fit.limit(25e9).loss(fit.law, 6.34e9, 242e9) == pytest.approx(2.2256440889984477)


def test_runs_without_a_limit_are_said_to_have_none():
    runs = muennighoffs_runs()
    fit = fit_repeated(dataclasses.replace(runs, loss=runs.loss - MUENNIGHOFF.E), resamples=20)
    assert not fit.law.has_limit and "no limit" in fit.law.about.note
    assert fit.token_decay == pytest.approx(15.387756, rel=1e-3)


def test_runs_that_never_repeat_are_refused():
    with pytest.raises(ValueError, match="has 0 runs whose tokens exceed their unique tokens"):
        fit_repeated(muennighoffs_runs(epochs=(1,)), resamples=0)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_muennighoffs_own_runs_say_that_repetition_is_worth_less():
    runs = read_runs(DATA / "datablations_dev.csv")
    fit = fit_repeated(runs.where(runs.loss < 4, "loss of 4 or more"), resamples=0)
    assert 5 < fit.token_decay < 50
    assert np.sqrt(np.mean(fit.residuals**2)) < 0.06
