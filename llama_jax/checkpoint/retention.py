"""Which checkpoints are kept, and how many bytes that comes to.

kept_steps(steps, config) -> frozenset[int]
forecast(state_or_abstract_state, config, num_steps=...) -> Forecast
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax

from llama_jax.config import CheckpointConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run's checkpoints will take on disk.

    Attributes:
        checkpoint_bytes: Of one checkpoint; arrays are stored as they are, uncompressed.
        kept_at_end: Checkpoints on disk when the run is over.
        bytes_at_end: Of those.
        peak_bytes: Most that is on disk at a time: a checkpoint is deleted only after the one
            that displaces it is complete.
    """

    checkpoint_bytes: int
    kept_at_end: int
    bytes_at_end: int
    peak_bytes: int

    def __str__(self) -> str:
        count = "1 checkpoint" if self.kept_at_end == 1 else f"{self.kept_at_end} checkpoints"
        return (
            f"{human_bytes(self.checkpoint_bytes)} a checkpoint, {count} at the end "
            f"({human_bytes(self.bytes_at_end)}), at most {human_bytes(self.peak_bytes)} on disk"
        )


def kept_steps(steps: Iterable[int], config: CheckpointConfig) -> frozenset[int]:
    """Steps that the rule keeps: the last `keep_last`, and multiples of `keep_every_steps`."""
    steps = sorted(set(steps))
    kept = set(steps[-config.keep_last :])
    if config.keep_every_steps:
        kept.update(step for step in steps if step % config.keep_every_steps == 0)
    return frozenset(kept)


def forecast(state: Any, config: CheckpointConfig, *, num_steps: int) -> Forecast:
    """Bytes that the checkpoints of a run of `num_steps` updates take.

    Args:
        state: Arrays, or their abstract values; every array counts once, however it is sharded.
        config: When checkpoints are saved and which are kept.
        num_steps: Updates of the whole run; the last one is always saved.
    """
    size = tree_bytes(state)
    steps = sorted({*range(config.every_steps, num_steps + 1, config.every_steps), num_steps})
    kept = len(kept_steps(steps, config))
    while_saving_the_last = len(kept_steps(steps[:-1], config)) + 1
    return Forecast(
        checkpoint_bytes=size,
        kept_at_end=kept,
        bytes_at_end=kept * size,
        peak_bytes=max(kept, while_saving_the_last) * size,
    )


def tree_bytes(state: Any) -> int:
    """Bytes of the arrays of a pytree, or of what its abstract values stand for."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def human_bytes(count: float) -> str:
    """Bytes in decimal units with three digits: `408 MB`, `1.25 TB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
