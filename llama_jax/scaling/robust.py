"""Robust least squares, many problems at once: starts and bootstrap resamples are rows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Rows solved together: their arrays stay in the second-level cache.
_ROWS = 64
_LARGEST_DAMPING = 1e9

# From constants "R K" to predictions "R P" and their derivatives "R P K".
Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Solved(NamedTuple):
    """Where each row ended.

    Attributes:
        constants: Of each row.
        objective: Sum, not mean, of the points' Huber losses.
    """

    constants: Float[np.ndarray, "R K"]
    objective: Float[np.ndarray, "R"]


def solve(
    model: Model,
    targets: Float[np.ndarray, "P"],
    starts: Float[np.ndarray, "R K"],
    *,
    delta: float,
    lower: Float[np.ndarray, "K"],
    weights: Float[np.ndarray, "R P"] | None = None,
    max_updates: int = 200,
) -> Solved:
    """Minimises `sum_i w_i Huber(model_i - target_i)` from each start.

    Newton's steps on the Huber loss, damped by the curvature of its quadratic majoriser, under
    which every step goes down: far away it is iteratively reweighted least squares, close by it
    converges at once. Neither scaling the objective nor its number of points changes the answer,
    which a stopping rule on the gradient of a mean would.

    Args:
        model: Predictions and their derivatives.
        targets: What the predictions should be.
        starts: Constants that each row begins from.
        delta: Residual at which the loss turns from quadratic to linear.
        lower: Least value of each constant; -inf where it has none.
        weights: How often each point counts in each row; once by default.
        max_updates: Accepted or refused steps.
    """
    if weights is None:
        weights = np.ones((len(starts), len(targets)))
    # Steps that overshoot overflow, and are refused.
    with np.errstate(all="ignore"):
        parts = [
            _solve(
                model,
                targets,
                starts[i : i + _ROWS],
                delta,
                lower,
                weights[i : i + _ROWS],
                max_updates,
            )
            for i in range(0, len(starts), _ROWS)
        ]
    return Solved(
        np.concatenate([part.constants for part in parts]),
        np.concatenate([part.objective for part in parts]),
    )


def huber(residuals: np.ndarray, delta: float) -> np.ndarray:
    """Half the square up to `delta`, linear beyond."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta))


def _solve(
    model: Model,
    targets: np.ndarray,
    starts: np.ndarray,
    delta: float,
    lower: np.ndarray,
    weights: np.ndarray,
    max_updates: int,
) -> Solved:
    best = starts.astype(np.float64, copy=True)
    damping, steady = np.full(len(best), 1.0), np.zeros(len(best), dtype=int)
    predictions, slopes = model(best)
    residuals = predictions - targets
    objective = np.sum(weights * huber(residuals, delta), axis=1)
    # A start from which the model is not finite leads nowhere.
    objective = np.where(np.isfinite(objective), objective, np.inf)
    active = np.flatnonzero(np.isfinite(objective))
    for _ in range(max_updates):
        if not len(active):
            break
        room = lower - best[active]
        steps = _steps(
            residuals[active], slopes[active], weights[active], delta, damping[active], room
        )
        tried = np.maximum(best[active] + steps, lower)
        predictions, tried_slopes = model(tried)
        tried_residuals = predictions - targets
        reached = np.sum(weights[active] * huber(tried_residuals, delta), axis=1)
        better = reached < objective[active]
        gained = np.where(better, objective[active] - reached, 0.0)
        steady[active] = np.where(gained <= 1e-13 * objective[active], steady[active] + 1, 0)
        moved = active[better]
        best[moved], objective[moved] = tried[better], reached[better]
        residuals[moved], slopes[moved] = tried_residuals[better], tried_slopes[better]
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 6.0)
        stuck = (steady[active] >= 4) | (damping[active] > _LARGEST_DAMPING)
        active = active[~stuck]
    return Solved(best, objective)


def _steps(
    residuals: np.ndarray,
    slopes: np.ndarray,
    weights: np.ndarray,
    delta: float,
    damping: np.ndarray,
    room: np.ndarray,
) -> np.ndarray:
    size = np.abs(residuals)
    pull = np.clip(residuals, -delta, delta) * weights
    majoriser = weights * (delta / np.maximum(size, delta))
    curvature = weights * (size <= delta) + damping[:, None] * majoriser
    turned = np.swapaxes(slopes, 1, 2)
    gradient = (turned @ pull[:, :, None])[:, :, 0]
    matrix = turned @ (slopes * curvature[:, :, None])
    # Directions that the points say nothing about must not make the system singular.
    diagonal = np.einsum("rkk->rk", matrix)
    diagonal += 1e-12 * np.max(diagonal, axis=1, keepdims=True) + 1e-300
    steps = -np.linalg.solve(matrix, gradient[:, :, None])[:, :, 0]
    beyond = steps < room
    if not (rows := np.flatnonzero(beyond.any(axis=1))).size:
        return steps
    # A constant that would pass its bound goes there, and the others step as that asks of them.
    beyond, gradient, matrix = beyond[rows], gradient[rows], matrix[rows]
    to_bound = np.where(beyond, room[rows], 0.0)
    left = -gradient - (matrix @ to_bound[:, :, None])[:, :, 0]
    matrix[beyond[:, :, None] | beyond[:, None, :]] = 0.0
    np.einsum("rkk->rk", matrix)[beyond] = 1.0
    wanted = np.where(beyond, to_bound, left)
    steps[rows] = np.linalg.solve(matrix, wanted[:, :, None])[:, :, 0]
    return steps
