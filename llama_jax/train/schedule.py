"""Learning rate of every update."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llama_jax.config import Cosine, Schedule, WarmupStableDecay

LearningRate = Callable[[Int[Array, ""]], Float[Array, ""]]


def make_schedule(schedule: Schedule, *, peak_lr: float, num_steps: int) -> LearningRate:
    """The learning rate as a function of the updates made so far.

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

    def learning_rate(step: Int[Array, ""]) -> Float[Array, ""]:
        rise = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
        progress = jnp.clip((step - stable_until) / descent, 0.0, 1.0)
        return peak_lr * rise * _descent(schedule, progress)

    return learning_rate


def _descent(schedule: Schedule, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Share of the peak, from 1 at progress 0 to `final_fraction` at progress 1."""
    if isinstance(schedule, Cosine):
        left = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    elif isinstance(schedule, WarmupStableDecay):
        left = 1.0 - jnp.sqrt(progress)
    else:
        left = 1.0 - progress
    return schedule.final_fraction + (1.0 - schedule.final_fraction) * left
