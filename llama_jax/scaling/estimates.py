"""Fitted constants with what the bootstrap says of each, for people and for programs."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from llama_jax.scaling.fit import Fit
from llama_jax.scaling.laws import NO_LIMIT

_MOST = 1e300


class Estimate(NamedTuple):
    """A number, and how far other resamples of the runs would have moved it.

    Attributes:
        value: Of the fit.
        standard_error: Over resamples; infinite where one of them has no bound, None where there
            are no resamples or it means nothing.
        interval_95: Two ends; None likewise.
    """

    value: float
    standard_error: float | None = None
    interval_95: tuple[float, float] | None = None

    def document(self) -> dict[str, Any]:
        """For programs; JSON knows no infinity, which is null."""
        told: dict[str, Any] = {"value": self.value}
        if self.standard_error is not None:
            told["standard_error"] = _finite(self.standard_error)
        if self.interval_95 is not None:
            told["interval_95"] = [_finite(end) for end in self.interval_95]
        return told

    def cells(self) -> tuple[str, str, str]:
        """Value, standard error and interval, for people."""
        ends = self.interval_95
        return (
            f"{self.value:.6g}",
            "" if self.standard_error is None else f"{self.standard_error:.4g}",
            "" if ends is None else f"{ends[0]:.5g} to {ends[1]:.5g}",
        )


def estimate(value: float, draws: Float[np.ndarray, "R"]) -> Estimate:
    """A number and its resamples, if there are any."""
    if not len(draws):
        return Estimate(value)
    spread = float(np.std(draws, ddof=1)) if np.isfinite(draws).all() else math.inf
    # Between two draws that are infinite there is no number.
    ends = np.percentile(np.minimum(draws, _MOST), [2.5, 97.5])
    low, high = (float(end) if end < _MOST else math.inf for end in ends)
    return Estimate(value, spread, (low, high))


def estimate_limit(value: float, draws: Float[np.ndarray, "R"]) -> Estimate:
    """The limit E of the loss, which is 0 below what any text can show.

    At 0 it stands at its bound, where a standard error means nothing; so does an interval, unless
    some resamples have a limit.
    """
    draws = np.where(draws < NO_LIMIT, 0.0, draws)
    if value >= NO_LIMIT:
        return estimate(value, draws)
    ends = estimate(0.0, draws).interval_95
    return Estimate(0.0, None, ends if ends is not None and ends[1] > 0 else None)


def constants(fit: Fit) -> dict[str, Estimate]:
    """A, B, E, alpha and beta of a law."""
    draws = fit.resamples
    return {
        name: (estimate_limit if name == "E" else estimate)(getattr(fit.law, name), draws[:, i])
        for i, name in enumerate(("A", "B", "E", "alpha", "beta"))
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
