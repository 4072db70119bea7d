"""How far a law's answers may be off, where the law tells how sure its constants are."""

import math
from collections.abc import Callable
from typing import NamedTuple

from llama_jax.scaling.laws import FrontierLaw, Law, LossLaw

_CONSTANTS_LEVEL, _DEVIATIONS = 0.95, 1.959964
_STEP = 1e-4
# A factor of a million either way is no interval that a person could use: anything may be.
_WIDEST = math.log(1e6)

Quantities = dict[str, float]


class Interval(NamedTuple):
    """Two ends, and the share of cases that lie between them."""

    low: float
    high: float
    level: float


def level(law: Law) -> float:
    """Of the intervals that a law gives; 0 where it gives none."""
    if isinstance(law, LossLaw) and law.covariance:
        return _CONSTANTS_LEVEL
    return law.exponent_level if law.exponent_interval[0] else 0.0


def by_constants(law: LossLaw, what: Callable[[LossLaw], Quantities]) -> dict[str, Interval]:
    """Intervals of positive quantities, from the covariance of the constants.

    To first order in the logarithms. Empty where the law has no covariance.

    Args:
        law: The law.
        what: The quantities by name, from a law of other constants.
    """
    if not law.covariance:
        return {}
    middle = what(law)
    try:
        slopes = _slopes(law, what)
    except (ValueError, ArithmeticError):  # a little aside there is no such law, or no answer
        return {}
    found = {}
    for name, value in middle.items():
        spread = _DEVIATIONS * math.sqrt(max(_quadratic(law, slopes[name]), 0.0))
        low, high = (
            (value * math.exp(-spread), value * math.exp(spread))
            if spread < _WIDEST
            else (0.0, math.inf)
        )
        found[name] = Interval(low, high, _CONSTANTS_LEVEL)
    return found


def by_exponent(law: Law, what: Callable[[Law], Quantities]) -> dict[str, Interval]:
    """Intervals of quantities of a frontier, from the interval of its exponent.

    Both of its ends are tried with the law held fixed at the middle of its data, so the intervals
    widen away from there. Empty where the law has no such interval.

    Args:
        law: The law.
        what: The quantities by name, from a frontier of another exponent.
    """
    ends = [what(law)] + [what(frontier) for frontier in exponent_ends(law)]
    if len(ends) == 1:
        return {}
    # Hoffmann's own exponent, .4565, lies outside of the interval that he prints for it.
    return {
        name: Interval(
            min(end[name] for end in ends), max(end[name] for end in ends), law.exponent_level
        )
        for name in ends[-1]
    }


def exponent_ends(law: Law) -> tuple[FrontierLaw, ...]:
    """The frontiers at both ends of a published interval; none where there is none."""
    if not law.exponent_interval[0]:
        return ()
    low, high = law.about.flops_range
    pivot = math.sqrt(low * high)
    return tuple(
        FrontierLaw(
            about=law.about,
            coefficient=law.optimum(pivot).params / pivot**exponent,
            exponent=exponent,
        )
        for exponent in law.exponent_interval
    )


def constants_ends(law: LossLaw, what: Callable[[LossLaw], float]) -> tuple[LossLaw, ...]:
    """The two likeliest laws at the ends of the interval of a positive quantity.

    For what else such laws would say, where it is not positive or not smooth. None where the law
    has no covariance, or such constants would be no law.
    """
    if not law.covariance:
        return ()
    slopes = _slopes(law, lambda law: {"": what(law)})[""]
    deviation = math.sqrt(max(_quadratic(law, slopes), 0.0))
    if not 0 < deviation * _DEVIATIONS < _WIDEST:
        return ()
    towards = [sum(row[j] * slopes[j] for j in range(5)) / deviation for row in law.covariance]
    vector = law.vector()
    try:
        return tuple(
            law.with_vector(
                tuple(v + sign * _DEVIATIONS * d for v, d in zip(vector, towards, strict=True))
            )
            for sign in (-1, 1)
        )
    except (ValueError, OverflowError):
        return ()


def _slopes(law: LossLaw, what: Callable[[LossLaw], Quantities]) -> dict[str, list[float]]:
    """Derivatives of the logarithms by each constant."""
    vector = law.vector()
    slopes: dict[str, list[float]] = {}
    for i in range(len(vector)):
        low, high = (
            what(law.with_vector((*vector[:i], vector[i] + step, *vector[i + 1 :])))
            for step in (-_STEP, _STEP)
        )
        for name in low:
            slopes.setdefault(name, []).append(math.log(high[name] / low[name]) / (2 * _STEP))
    return slopes


def _quadratic(law: LossLaw, slopes: list[float]) -> float:
    return sum(
        slopes[i] * slopes[j] * law.covariance[i][j]
        for i in range(len(slopes))
        for j in range(len(slopes))
    )
