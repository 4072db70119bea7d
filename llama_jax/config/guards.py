"""What a run does about hangs, spikes and silent corruption."""

import dataclasses
from typing import Literal

from llama_jax.config import checks

SPIKE_ACTIONS = ("report", "rewind", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """When a run stops trusting its machines or its data; may change between two starts.

    Attributes:
        step_deadline_seconds: For one update, from the second on, at most. A process that makes
            none for so long dumps its stacks and ends with 1, so that it is started again; 0 waits
            for ever.
        step_deadline_medians: The same in medians of the last updates, as soon as those are known,
            but no less than 300 s; 0 leaves it at the seconds.
        other_deadline_seconds: For what is no update: compilation and the first one, an
            evaluation, a checkpoint; 0 waits for ever.
        stop_deadline_seconds: For the last save of a run that was asked to stop; keep it below what
            the platform allows before it kills. 0 waits for ever.
        spike_window: Updates before one with whose losses and gradient norms it is compared.
        spike_deviations: A spike is above the median by more than so many standard deviations, of
            which the median absolute deviation is the estimate.
        on_spike: What is done about a spike: "report" names it; "rewind" goes back to the last
            checkpoint before it and passes over the data since, at one of the loss alone; "skip"
            leaves parameters and optimizer state as they were before it, and the run ends after
            `train.max_skipped_updates` in a row.
        rewind_steps: Updates before a spike that are not trusted either.
        max_rewinds: Of one run; one more ends it.
        max_deaths_at_step: Starts in a row that die after the same update; the next one is refused
            once, with the documents that come there. 0 never refuses.
        recompute_every_steps: The norm of the gradient is computed twice more before every so
            many updates, and must be bit for bit the same; 0 never does. Costs about two forward
            and backward passes each time, and another compiled program.
    """

    step_deadline_seconds: float = 1800.0
    step_deadline_medians: float = 20.0
    other_deadline_seconds: float = 3600.0
    stop_deadline_seconds: float = 540.0
    spike_window: int = 128
    spike_deviations: float = 10.0
    on_spike: Literal["report", "rewind", "skip"] = "report"
    rewind_steps: int = 0
    max_rewinds: int = 10
    max_deaths_at_step: int = 3
    recompute_every_steps: int = 0

    def __post_init__(self) -> None:
        checks.not_negative(
            "guards",
            step_deadline_seconds=self.step_deadline_seconds,
            step_deadline_medians=self.step_deadline_medians,
            other_deadline_seconds=self.other_deadline_seconds,
            stop_deadline_seconds=self.stop_deadline_seconds,
            rewind_steps=self.rewind_steps,
            max_rewinds=self.max_rewinds,
            max_deaths_at_step=self.max_deaths_at_step,
            recompute_every_steps=self.recompute_every_steps,
        )
        checks.positive(
            "guards", spike_window=self.spike_window, spike_deviations=self.spike_deviations
        )
        checks.one_of("guards", SPIKE_ACTIONS, on_spike=self.on_spike)
