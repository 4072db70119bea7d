"""A ladder of small runs, from which a scaling law is read."""

import dataclasses

from llama_jax.config import checks
from llama_jax.config.model import ModelConfig
from llama_jax.config.run import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One size, trained once on a plateau that is cooled down at several lengths.

    Attributes:
        model: Shape of the decoder.
        peak_lr: Learning rate of the plateau.
        batch_size: Rows of an update.
        num_steps: Updates of each cooled run, cooldown included, rising.
        seeds: The size is trained with each of them.
        other_lrs: The size is trained at each of these too. At each length the learning rate of
            least loss, in the mean of the seeds, is the one that counts.
    """

    model: ModelConfig
    peak_lr: float
    batch_size: int
    num_steps: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    other_lrs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        checks.positive("rung", peak_lr=self.peak_lr, batch_size=self.batch_size)
        if not self.num_steps or list(self.num_steps) != sorted({*self.num_steps}):
            raise ValueError(f"rung.num_steps={self.num_steps} must be one or more, and rise.")
        checks.positive("rung", num_steps=self.num_steps[0])
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"rung.seeds={self.seeds} must be one or more, all different.")
        for rate in self.other_lrs:
            checks.positive("rung", other_lrs=rate)
        if len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError(
                f"rung.other_lrs={self.other_lrs} must differ from one another and from "
                f"rung.peak_lr={self.peak_lr}."
            )

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """All that the size is trained at."""
        return (self.peak_lr, *self.other_lrs)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LadderConfig:
    """Sizes and lengths of the runs, and all that they share.

    Attributes:
        name: Of the ladder.
        base: What every run has but for what its rung says.
        rungs: Sizes, from small to large.
        warmup_fraction: Of a rung's shortest run.
        decay_fraction: Share of a run that is its cooldown (Hägele et al. 2024,
            arXiv:2405.18392: 20% nearly matches a cosine).
        held_out_rungs: Last rungs that are left out of the fit, to check its prediction.
    """

    name: str
    base: RunConfig
    rungs: tuple[Rung, ...]
    warmup_fraction: float = 0.1
    decay_fraction: float = 0.2
    held_out_rungs: int = 1

    def __post_init__(self) -> None:
        checks.fraction("ladder", warmup_fraction=self.warmup_fraction)
        checks.not_negative("ladder", held_out_rungs=self.held_out_rungs)
        if not 0 < self.decay_fraction < 1:
            raise ValueError(f"ladder.decay_fraction={self.decay_fraction} must be in (0, 1).")
        if self.held_out_rungs >= len(self.rungs):
            raise ValueError(
                f"ladder.held_out_rungs={self.held_out_rungs} must leave some of "
                f"{len(self.rungs)} rungs to fit."
            )
        starts = [self.plateau_steps(steps) for rung in self.rungs for steps in rung.num_steps]
        if min(starts) < 1:
            raise ValueError("ladder.rungs: a run of so few steps has no plateau to branch from.")
        for rung in self.rungs:
            plateaus = [self.plateau_steps(steps) for steps in rung.num_steps]
            if len(set(plateaus)) < len(plateaus):
                raise ValueError(f"rung.num_steps={rung.num_steps} are too near to one another.")

    def plateau_steps(self, num_steps: int) -> int:
        """Updates before the cooldown of a run of so many."""
        return num_steps - max(1, round(num_steps * self.decay_fraction))
