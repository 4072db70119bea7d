"""The best of the learning rates that a ladder tried, for each size and length."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from llama_jax.units import human_count


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What a size came to after a number of tokens at one learning rate.

    Attributes:
        peak_lr: Of the plateau.
        runs: Of it, one a seed, those that diverged left out.
        diverged: How many did.
    """

    peak_lr: float
    runs: Sequence[dict[str, Any]]
    diverged: int

    @property
    def loss(self) -> float:
        """Mean over seeds, in nats per token; infinite where all runs diverged."""
        losses = [run["loss"] for run in self.runs]
        return sum(losses) / len(losses) if losses else math.inf

    def __str__(self) -> str:
        told = f"{self.peak_lr:g}" + (f" {self.loss:.4f}" if self.runs else "")
        return told + (f" ({self.diverged} diverged)" if self.diverged else "")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The learning rates of one size and length, from low to high."""

    params: int
    tokens: int
    rates: tuple[Rate, ...]

    @property
    def best(self) -> Rate:
        """Least loss; a rate at which fewer seeds came through is never better."""
        return min(self.rates, key=lambda rate: (-len(rate.runs), rate.loss))

    @property
    def at_edge(self) -> bool:
        """Whether a better one may lie beyond those that were tried."""
        return len(self.rates) > 1 and self.best in (self.rates[0], self.rates[-1])

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "params": self.params,
            "tokens": self.tokens,
            "best": self.best.peak_lr if self.best.runs else None,
            "at_edge": self.at_edge,
            "tried": [
                {
                    "peak_lr": rate.peak_lr,
                    "loss": rate.loss if rate.runs else None,
                    "seeds": len(rate.runs),
                    "diverged": rate.diverged,
                }
                for rate in self.rates
            ],
        }

    def __str__(self) -> str:
        where = f"{human_count(self.params)} parameters, {human_count(self.tokens)} tokens"
        told = f"{where}: {', '.join(map(str, self.rates))}"
        if not self.best.runs:
            return f"{told}; none is left"
        edge = ", the last one tried on its side" if self.at_edge else ""
        return f"{told}; best {self.best.peak_lr:g}{edge}"


def choose_rates(results: Iterable[dict[str, Any]]) -> list[Choice]:
    """Groups cooled runs by size and length, and these by learning rate."""
    groups: dict[tuple[int, int], dict[float, list[dict[str, Any]]]] = {}
    for result in results:
        rates = groups.setdefault((result["params"], result["tokens"]), {})
        rates.setdefault(result["peak_lr"], []).append(result)
    return [
        Choice(
            params=params,
            tokens=tokens,
            rates=tuple(_rate(peak_lr, rates[peak_lr]) for peak_lr in sorted(rates)),
        )
        for (params, tokens), rates in sorted(groups.items())
    ]


def _rate(peak_lr: float, runs: list[dict[str, Any]]) -> Rate:
    good = [run for run in runs if not run["diverged"]]
    return Rate(peak_lr=peak_lr, runs=good, diverged=len(runs) - len(good))
