"""Learning rate of every update."""

import math
from collections.abc import Callable

from llama_jax.config import Cosine, Schedule, WarmupStableDecay


def make_schedule(schedule: Schedule, *, peak_lr: float, num_steps: int) -> Callable[[int], float]:
    """The learning rate as a function of the updates made so far, computed on the host.

    Update `n`, counted from 0, of a warm-up of `w` gets `peak_lr * (n + 1) / w`: the first one
    moves already, and the last one of the warm-up gets the peak. The descent starts from the
    peak and would reach `final_fraction` of it at `n = num_steps`, so that the last update moves
    too where that fraction is 0.

    Sources: cosine to a tenth, LLaMA (arXiv:2302.13971, section 2.3); plateau and `1 - sqrt`
    cooldown, Hägele et al. 2024 (arXiv:2405.18392, section 3).

    Args:
        schedule: Shape of the curve.
        peak_lr: Its highest value.
        num_steps: Updates of the whole run.
    """
    warmup = schedule.warmup_steps
    stable_until = warmup
    if isinstance(schedule, WarmupStableDecay):
        stable_until = num_steps - schedule.decay_steps
    descent = max(num_steps - stable_until, 1)

    def learning_rate(step: int) -> float:
        rise = min((step + 1) / max(warmup, 1), 1.0)
        progress = min(max((step - stable_until) / descent, 0.0), 1.0)
        # Written as a loss from the peak, so that a plateau is the peak to the last bit.
        return (
            peak_lr * rise * (1.0 - (1.0 - schedule.final_fraction) * _fallen(schedule, progress))
        )

    return learning_rate


def _fallen(schedule: Schedule, progress: float) -> float:
    """Share of the descent that is done, from 0 at progress 0 to 1 at progress 1."""
    if isinstance(schedule, Cosine):
        return 0.5 * (1.0 - math.cos(math.pi * progress))
    if isinstance(schedule, WarmupStableDecay):
        return math.sqrt(progress)
    return progress
