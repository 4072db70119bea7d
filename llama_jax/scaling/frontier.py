"""The best size for a compute, from losses alone: isoFLOP parabolas and envelopes."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from llama_jax.scaling.laws import FrontierLaw, Provenance
from llama_jax.scaling.replicates import cell_numbers, resample_weights
from llama_jax.scaling.runs import Runs, check_resamples

# Budgets nearer than this are one: tables round them, or make them from whole steps.
_SAME_BUDGET = 0.05
_LEAST_SIZES, _LEAST_BUDGETS = 4, 2
_ENVELOPE_POINTS = 1500


class BestSize(NamedTuple):
    """The size of least loss at one compute."""

    flops: float
    params: float
    loss: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FrontierFit:
    """A power law through best sizes.

    Attributes:
        law: With the exponent's 95% interval, where there were resamples.
        points: Best sizes that it goes through.
        exponents: Of each resample.
        share_lost: Of the resamples, those that have no exponent, for a budget of theirs has no
            minimum.
        left_out: Budgets without a best size, and why.
    """

    law: FrontierLaw
    points: tuple[BestSize, ...]
    exponents: Float[np.ndarray, "R"]
    share_lost: float = 0.0
    left_out: tuple[str, ...] = ()


def fit_isoflop(runs: Runs, *, resamples: int = 4000, seed: int = 0) -> FrontierFit:
    """A parabola of loss over log parameters at each budget, a power law through their minima.

    Source: Hoffmann et al. 2022 (arXiv:2203.15556), section 3.2. A budget counts only where it has
    four sizes or more, its parabola opens upwards, and its minimum lies among its sizes. Resamples
    draw runs within each budget.

    Raises:
        ValueError: If fewer than two budgets have a minimum.
    """
    check_resamples(resamples)
    groups, left_out, too_few, cells = [], [], [], cell_numbers(runs)
    for group in _budgets(runs):
        flops = float(np.exp(np.mean(np.log(runs.flops[group]))))
        sizes = len(np.unique(runs.params[group]))
        if sizes < _LEAST_SIZES:
            too_few.append((flops, sizes))
            continue
        x, loss = np.log(runs.params[group]), runs.loss[group]
        found = _vertices(x, loss, np.ones((1, len(group))))[0]
        if not np.isfinite(found[0]):
            left_out.append(f"{flops:.3g} FLOPs: no minimum among its {sizes} sizes")
            continue
        groups.append((flops, x, loss, found, np.unique(cells[group], return_inverse=True)[1]))
    left_out += _too_few(too_few)
    _check_budgets(len(groups), left_out)
    points = tuple(BestSize(f, float(np.exp(v[0])), float(v[1])) for f, _, _, v, _ in groups)
    draws = np.zeros((0, len(groups)))
    if resamples:
        draws = np.stack(
            [
                _vertices(x, loss, resample_weights(of_group, resamples, seed + i))[:, 0]
                for i, (_, x, loss, _, of_group) in enumerate(groups)
            ],
            axis=1,
        )
    return _power_law(runs, points, draws, tuple(left_out), "isoflop")


def fit_envelope(runs: Runs) -> FrontierFit:
    """The size of least loss at each of 1,500 computes, and a power law through them.

    Each size's losses are joined by straight lines in log loss over log compute; a size says
    nothing beyond its own runs. There are no resamples: without a run its curve has a hole, which
    moves the envelope further than noise does. Of 54 simulated runs with 0.3% of noise, resamples
    of runs said an interval three times as wide as the exponents of other noise were spread.

    Source: Hoffmann et al. 2022 (arXiv:2203.15556), section 3.1.

    Raises:
        ValueError: If fewer than two sizes have two runs or more, or one size is best throughout.
    """
    curves = []
    for size in np.unique(runs.params):
        of_size = np.flatnonzero(runs.params == size)
        order = of_size[np.argsort(runs.flops[of_size])]
        if len(order) > 1:
            curves.append((size, np.log(runs.flops[order]), np.log(runs.loss[order])))
    if len(curves) < 2:
        raise ValueError(
            "RUNS has fewer than two sizes with two runs or more; an envelope is made of curves of "
            "loss over compute, one a size."
        )
    low = min(x[0] for _, x, _ in curves)
    high = max(x[-1] for _, x, _ in curves)
    grid = np.linspace(low, high, _ENVELOPE_POINTS)
    losses = np.stack([np.interp(grid, x, y, left=np.inf, right=np.inf) for _, x, y in curves])
    best = np.argmin(losses, axis=0)
    # Where one curve alone reaches, nothing was compared.
    told = np.sum(np.isfinite(losses), axis=0) > 1
    points = tuple(
        BestSize(
            float(np.exp(grid[i])), float(curves[best[i]][0]), float(np.exp(losses[best[i], i]))
        )
        for i in np.flatnonzero(told)
    )
    if len({point.params for point in points}) < 2:
        raise ValueError(
            "RUNS has one size that is best at every compute; add smaller and larger ones."
        )
    return _power_law(runs, points, np.zeros((0, len(points))), (), "envelope")


def _budgets(runs: Runs) -> list[np.ndarray]:
    order = np.argsort(runs.flops)
    gaps = np.diff(np.log(runs.flops[order])) > _SAME_BUDGET
    return np.split(order, np.flatnonzero(gaps) + 1)


def _too_few(budgets: Sequence[tuple[float, int]]) -> list[str]:
    """One line for all budgets of too few sizes, by their FLOPs and sizes: there may be many."""
    if not budgets:
        return []
    flops, sizes = zip(*budgets, strict=True)
    needed = f"a parabola needs {_LEAST_SIZES}"
    if len(budgets) == 1:
        return [f"{flops[0]:.3g} FLOPs: {sizes[0]} sizes; {needed}"]
    span = f"{min(flops):.3g} to {max(flops):.3g} FLOPs"
    return [f"{len(budgets)} budgets of {span}: at most {max(sizes)} sizes each; {needed}"]


def _vertices(x: np.ndarray, loss: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log size and loss at each weighted parabola's minimum; NaN where there is none."""
    middle = x.mean()
    design = np.stack([np.ones_like(x), x - middle, (x - middle) ** 2], axis=1)
    matrix = np.einsum("rp,pi,pj->rij", weights, design, design, optimize=True)
    vector = (weights * loss) @ design
    enough = np.array([len(np.unique(x[row > 0])) > 2 for row in weights])
    matrix[~enough] = np.eye(3)
    c, b, a = np.moveaxis(np.linalg.solve(matrix, vector[:, :, None])[:, :, 0], 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -b / (2 * a)
        lowest = c - b * b / (4 * a)
    inside = (vertex >= x.min() - middle) & (vertex <= x.max() - middle)
    valid = enough & (a > 0) & inside
    return np.where(valid[:, None], np.stack([vertex + middle, lowest], axis=1), np.nan)


def _check_budgets(count: int, left_out: Sequence[str]) -> None:
    if count < _LEAST_BUDGETS:
        raise ValueError(
            f"RUNS has {count} usable budgets; a power law needs {_LEAST_BUDGETS}, each with "
            f"{_LEAST_SIZES} sizes around its best one. Left out: {'; '.join(left_out) or 'none'}."
        )


def _power_law(
    runs: Runs,
    points: tuple[BestSize, ...],
    draws: np.ndarray,
    left_out: tuple[str, ...],
    form: str,
) -> FrontierFit:
    x = np.log([point.flops for point in points])
    exponent, intercept = np.polyfit(x, np.log([point.params for point in points]), 1)
    centred = x - x.mean()
    exponents = (draws @ centred) / np.sum(centred**2)
    found = np.isfinite(exponents)
    share_lost = 1 - float(found.mean()) if len(found) else 0.0
    exponents = exponents[found]
    interval = (0.0, 0.0)
    if len(exponents):
        low, high = np.percentile(exponents, [2.5, 97.5])
        interval = (float(low), float(high))
    about = Provenance(
        name=form,
        source=f"{form} of {len(runs)} runs",
        counting="parameters and FLOPs as in the table",
        params_range=(float(runs.params.min()), float(runs.params.max())),
        tokens_range=(float(runs.tokens.min()), float(runs.tokens.max())),
        flops_range=(float(runs.flops.min()), float(runs.flops.max())),
    )
    law = FrontierLaw(
        about=about,
        coefficient=float(np.exp(intercept)),
        exponent=float(exponent),
        exponent_interval=interval,
    )
    return FrontierFit(
        law=law, points=points, exponents=exponents, share_lost=share_lost, left_out=left_out
    )
