"""Updates whose loss or gradient norm leaves what was usual are not made."""

import collections
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from llama_jax.config import GuardConfig
from llama_jax.train.ledger import UPDATES_AHEAD
from llama_jax.train.spikes import ceiling


class SpikeSkip:
    """Gives each update the ceilings above which the step leaves everything as it was.

    They come from updates that are so far behind that their numbers have arrived, whenever the host
    read them: every process, and a run that went on from any checkpoint, gives the same.

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
        self._made: collections.deque[tuple[int, float, float]] = collections.deque(
            map(tuple, before.get("made", ())), maxlen=config.spike_window + UPDATES_AHEAD
        )
        self._skipped = int(before.get("skipped", 0))

    @property
    def window(self) -> dict[str, Any]:
        """What a run that goes on from here has to know, to come to the same answers."""
        return {"made": [list(update) for update in self._made], "skipped": self._skipped}

    @property
    def metrics(self) -> dict[str, float]:
        """Updates that were passed over since the run began, over all starts."""
        return {"skipped_spikes": float(self._skipped)}

    def ceilings(self, step: int) -> tuple[Float[np.ndarray, "2"]]:
        """Largest loss and norm of the gradient with which update `step`, from 1, is made."""
        window = self._config.spike_window
        known = [made for made in self._made if made[0] < step - UPDATES_AHEAD][-window:]
        highest = [math.inf, math.inf]
        if 2 * len(known) >= window:
            _, losses, norms = (list(values) for values in zip(*known, strict=True))
            highest = [ceiling(values, self._config.spike_deviations) for values in (losses, norms)]
        return (np.array(highest, np.float32),)

    def see(self, step: int, metrics: dict[str, float]) -> None:
        """Takes note of one update."""
        loss, norm = metrics["loss_nats_per_token"], metrics["grad_norm"]
        if not metrics["skipped"]:
            self._made.append((step, loss, norm))
        elif math.isfinite(loss) and math.isfinite(norm):
            self._skipped += 1
            [(highest_loss, highest_norm)] = self.ceilings(step)
            text = (
                f"loss {loss:.4g} (at most {highest_loss:.4g}), norm of the gradient {norm:.4g} "
                f"(at most {highest_norm:.4g}): the update is passed over"
            )
            self._incident("spike", step, text)
