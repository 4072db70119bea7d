"""Losses and gradient norms that leave what was usual before them."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

from llama_jax.config import GuardConfig
from llama_jax.train.taint import Rewind

_WATCHED = {"loss_nats_per_token": "loss", "grad_norm": "norm of the gradient"}
# Of a normal distribution, the standard deviation is so many median absolute deviations.
_MAD_TO_DEVIATION = 1.4826
# Where values hardly vary, a deviation is taken to be at least this share of the median.
_SMALLEST_DEVIATION = 0.005


def deviations_above(value: float, before: list[float]) -> float:
    """How many standard deviations a value is above the median of those before it.

    The deviation is estimated by the median absolute deviation, which, as the median, half of the
    values can spoil only together.

    Source: Leys et al. 2013, "Detecting outliers: do not use standard deviation around the mean,
    use absolute deviation around the median", doi:10.1016/j.jesp.2013.03.013. A floor is added,
    for losses of a smooth run have deviations near zero.
    """
    median, deviation = _usual(before)
    return (value - median) / deviation


def ceiling(before: list[float], deviations: float) -> float:
    """The value that is so many deviations above the median, as `deviations_above` counts them."""
    median, deviation = _usual(before)
    return median + deviations * deviation


def _usual(values: list[float]) -> tuple[float, float]:
    """Median and deviation."""
    median = _median(values)
    deviation = _MAD_TO_DEVIATION * _median([abs(value - median) for value in values])
    return median, max(deviation, _SMALLEST_DEVIATION * abs(median), 1e-30)


def _median(values: list[float]) -> float:
    middle = sorted(values)
    half = len(middle) // 2
    return middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2


class SpikeGuard:
    """Names spikes, and asks for a rewind at one of the loss where the config says so.

    A spike is told once; the window after it is quiet. Every process sees the same numbers, and so
    comes to the same answer at the same update.

    Args:
        config: The rule.
        incident: Tells people and files: kind, step, text.
        before: What `window` was when the checkpoint was saved from which the run goes on.
    """

    def __init__(
        self,
        config: GuardConfig,
        incident: Callable[[str, int, str], None],
        before: Mapping[str, Any] = {},
    ):
        self._config, self._incident = config, incident
        self._seen = {
            name: collections.deque(before.get(name, ()), maxlen=config.spike_window)
            for name in _WATCHED
        }
        self._quiet_until: dict[str, int] = dict(before.get("quiet_until", {}))

    metrics: Mapping[str, float] = {}

    def ceilings(self, step: int) -> tuple[()]:
        """None: an update is made, and judged after."""
        del step
        return ()

    @property
    def window(self) -> dict[str, Any]:
        """What a run that goes on from here has to know, to come to the same answers."""
        return {name: list(seen) for name, seen in self._seen.items()} | {
            "quiet_until": dict(self._quiet_until)
        }

    def see(self, step: int, metrics: dict[str, float]) -> None:
        """Compares one update with those before it.

        Raises:
            Rewind: At a spike of the loss, if the config says so.
        """
        if metrics["skipped"]:
            return
        for name, seen in self._seen.items():
            value, before = metrics[name], list(seen)
            seen.append(value)
            if 2 * len(before) >= self._config.spike_window and step > self._quiet_until.get(
                name, 0
            ):
                above = deviations_above(value, before)
                if above > self._config.spike_deviations:
                    self._quiet_until[name] = step + self._config.spike_window
                    self._tell(name, step, value, above, before)

    def _tell(self, name: str, step: int, value: float, above: float, before: list[float]) -> None:
        text = (
            f"{_WATCHED[name]} {value:.4g}, {above:.0f} deviations above {_median(before):.4g}, "
            f"the median of the {len(before)} updates before"
        )
        self._incident("spike", step, text)
        if self._config.on_spike == "rewind" and name == "loss_nats_per_token":
            raise Rewind(max(step - 1 - self._config.rewind_steps, 0), step, text)
