"""How long an update may take before it is taken to hang."""

import collections
import statistics

from llama_jax.config import GuardConfig

# Storage that fails is tried again for a minute and a half, and that is no hang.
_FLOOR_SECONDS = 300.0
_REMEMBERED = 32
_ASK_EVERY = 16


class UpdateDeadline:
    """Many times what an update takes, as soon as that is known; at most what the config says.

    Attributes:
        seconds: The deadline now; 0 waits for ever.

    Args:
        config: The rule.
    """

    def __init__(self, config: GuardConfig):
        self.seconds = config.step_deadline_seconds
        self._config = config
        self._took: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self._count = 0

    def see(self, seconds: float) -> None:
        """Takes note of how long an update took."""
        self._took.append(seconds)
        self._count += 1
        config = self._config
        if self._count % _ASK_EVERY == 0 and config.step_deadline_medians:
            many = config.step_deadline_medians * statistics.median(self._took)
            self.seconds = min(config.step_deadline_seconds, max(many, _FLOOR_SECONDS))
