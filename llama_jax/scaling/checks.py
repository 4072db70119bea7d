"""A law's predictions beside what runs came to, and beside what needs no law."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from llama_jax.scaling.fit import Fit
from llama_jax.scaling.replicates import cell_numbers
from llama_jax.scaling.runs import Runs
from llama_jax.units import human_count


class Baseline(NamedTuple):
    """What a fitted run says of another one, its loss carried over; the mean of its seeds.

    Attributes:
        params: Of the fitted run.
        tokens: Of the fitted run.
        loss: Of the fitted run.
    """

    params: float
    tokens: float
    loss: float

    def __str__(self) -> str:
        return f"{human_count(self.params)} parameters, {human_count(self.tokens)} tokens"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A loss that a law says of a run, and what fitted runs say of it without one.

    Attributes:
        params: Of the run.
        tokens: Of the run.
        loss: By the law.
        interval_95: Of the resamples, which know nothing of a run's own noise; None without any.
        nearest: The fitted run that is nearest in log parameters and log tokens.
        best: The fitted run of least loss.
    """

    params: float
    tokens: float
    loss: float
    interval_95: tuple[float, float] | None
    nearest: Baseline
    best: Baseline

    def __str__(self) -> str:
        return f"{human_count(self.params)} parameters, {human_count(self.tokens)} tokens"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A prediction, and what it came to.

    Attributes:
        prediction: Of the run.
        measured: Loss of the run.
    """

    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.prediction.loss / self.measured - 1

    @property
    def nearest_error(self) -> float:
        """The same of the nearest run's loss."""
        return self.prediction.nearest.loss / self.measured - 1

    @property
    def best_error(self) -> float:
        """The same of the least loss."""
        return self.prediction.best.loss / self.measured - 1

    def document(self) -> dict[str, object]:
        """For programs."""
        return dataclasses.asdict(self.prediction) | {
            "nearest": self.prediction.nearest._asdict() | {"error": self.nearest_error},
            "best": self.prediction.best._asdict() | {"error": self.best_error},
            "measured": self.measured,
            "error": self.error,
        }

    def lines(self, name: str) -> list[str]:
        """For people, what needs no law below what the law says."""
        said, ends = self.prediction, self.prediction.interval_95
        told = f" ({ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
        law = (
            f"{name}: predicted {said.loss:.4f}{told}, measured {self.measured:.4f} "
            f"({self.error:+.2%})"
        )
        carried = (
            f"  without a law: {said.nearest.loss:.4f} of the nearest run, {said.nearest} "
            f"({self.nearest_error:+.2%}); {said.best.loss:.4f} of the best run, {said.best} "
            f"({self.best_error:+.2%})"
        )
        return [law, carried]


def predict(
    fit: Fit, fitted: Runs, params: Iterable[float], tokens: Iterable[float]
) -> list[Prediction]:
    """What a law, and the runs that it was fitted to, say of others."""
    cells = _means(fitted)
    best = min(cells, key=lambda cell: cell.loss)
    found = []
    for N, D in zip(map(float, params), map(float, tokens), strict=True):
        draws = fit.losses(N, D)
        low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (0.0, 0.0)
        found.append(
            Prediction(
                params=N,
                tokens=D,
                loss=float(fit.law.loss(N, D)),
                interval_95=(float(low), float(high)) if len(draws) else None,
                nearest=min(cells, key=_distance(N, D)),
                best=best,
            )
        )
    return found


def check_predictions(fit: Fit, fitted: Runs, held_out: Runs) -> list[Check]:
    """Compares a law with runs that it was not fitted to."""
    said = predict(fit, fitted, held_out.params, held_out.tokens)
    return [
        Check(prediction=prediction, measured=float(measured))
        for prediction, measured in zip(said, held_out.loss, strict=True)
    ]


def _means(runs: Runs) -> list[Baseline]:
    numbers = cell_numbers(runs)
    return [
        Baseline(
            float(runs.params[of_cell][0]),
            float(runs.tokens[of_cell][0]),
            float(runs.loss[of_cell].mean()),
        )
        for of_cell in (numbers == number for number in range(int(numbers.max()) + 1))
    ]


def _distance(params: float, tokens: float) -> Callable[[Baseline], float]:
    return lambda cell: float(np.hypot(np.log(cell.params / params), np.log(cell.tokens / tokens)))
