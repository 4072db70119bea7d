"""Best sizes come from losses alone, and budgets that show none are left out by name."""

from pathlib import Path

import numpy as np
import pytest

from llama_jax.scaling.frontier import fit_envelope, fit_isoflop
from llama_jax.scaling.published import BESIROGLU
from llama_jax.scaling.runs import Runs, make_runs, read_runs

DATA = Path(__file__).parents[3] / "shared" / "scaling"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")


def grid(budgets, around=np.linspace(-1.2, 1.2, 9)):
    params, tokens = [], []
    for flops in budgets:
        for shift in around:
            N = BESIROGLU.optimum(flops).params * np.exp(shift)
            params.append(N)
            tokens.append(flops / 6 / N)
    losses = [BESIROGLU.loss(N, D) for N, D in zip(params, tokens, strict=True)]
    return make_runs(params, tokens, losses)


def joined(*parts: Runs) -> Runs:
    names = ("params", "tokens", "loss")
    return make_runs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def test_parabolas_find_the_exponent_of_the_law_that_made_the_losses():
    fit = fit_isoflop(grid([1e18, 1e19, 1e20, 1e21]), resamples=0)
    assert fit.law.exponent == pytest.approx(BESIROGLU.params_exponent, abs=0.005)
    for point in fit.points:
        assert point.params == pytest.approx(BESIROGLU.optimum(point.flops).params, rel=0.05)


def test_budgets_without_a_minimum_are_left_out_by_name():
    good = grid([1e18, 1e19, 1e20])
    one_sided = grid([1e21], around=np.linspace(0.5, 2.0, 6))
    few = grid([1e22], around=np.array([-1.0, 0.0, 1.0]))
    fit = fit_isoflop(joined(good, one_sided, few), resamples=0)
    assert len(fit.points) == 3
    assert "1e+21 FLOPs: no minimum among its 6 sizes" in fit.left_out
    assert any("1e+22 FLOPs: 3 sizes" in line for line in fit.left_out)
    fewer = grid([1e23], around=np.array([0.0, 1.0]))
    (told,) = (
        line
        for line in fit_isoflop(joined(good, few, fewer), resamples=0).left_out
        if "1e+23" in line
    )
    assert told == "2 budgets of 1e+22 to 1e+23 FLOPs: at most 3 sizes each; a parabola needs 4"
    with pytest.raises(ValueError, match="has 0 usable budgets; a power law needs 2"):
        fit_isoflop(one_sided, resamples=0)


def test_the_envelope_follows_the_frontier():
    sizes = np.logspace(8, 10, 15)
    N, D = (values.ravel() for values in np.meshgrid(sizes, np.logspace(8.5, 12, 40)))
    runs = make_runs(N, D, BESIROGLU.E + BESIROGLU.A * N**-BESIROGLU.alpha
                     + BESIROGLU.B * D**-BESIROGLU.beta)  # fmt: skip
    middle = runs.where((runs.flops > 1e19) & (runs.flops < 1e22), "outside")
    assert fit_envelope(middle).law.exponent == pytest.approx(BESIROGLU.params_exponent, abs=0.03)
    with pytest.raises(ValueError, match="fewer than two sizes with two runs"):
        fit_envelope(grid([1e18]))


@needs_data
def test_chinchillas_profiles_give_an_exponent_within_its_published_interval():
    runs = read_runs(
        DATA / "isoflop_chinchilla_massivetext_scalefit.csv", where=("outlier", "False")
    )
    fit = fit_isoflop(runs, resamples=1000)
    low, high = fit.law.exponent_interval
    # Hoffmann et al., Table 2, approach 2: 0.49 (0.462, 0.534).
    assert low < 0.534
    assert high > 0.49
    assert low < fit.law.exponent < high
