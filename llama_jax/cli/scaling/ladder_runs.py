"""The runs of a ladder: plateaus, and the branches of them that are cooled down."""

import dataclasses
import itertools

from llama_jax.config import EvaluateConfig, LadderConfig, RunConfig, WarmupStableDecay
from llama_jax.config.ladder import Rung
from llama_jax.flops import count_params


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LadderRun:
    """One training run, and where it branches off.

    Attributes:
        name: Of its folder.
        config: Of the run.
        origin: Folder of the run that it goes on from; empty for none.
        first_step: Updates that were made there.
        cooled: Whether it is cooled down, and so counts; else it is a plateau.
        held_out: Whether it is left out of the fit.
    """

    name: str
    config: RunConfig
    origin: str
    first_step: int
    cooled: bool
    held_out: bool

    @property
    def params(self) -> int:
        """All parameters."""
        return count_params(self.config.model).total

    @property
    def tokens(self) -> int:
        """Read at the end, those of the runs that it goes on from included."""
        return self.config.tokens_before(self.config.train.num_steps)

    def flops_before(self, step: int) -> float:
        """Training FLOPs (6ND) of its own updates before `step`."""
        tokens = self.config.tokens_before(max(step, self.first_step))
        return 6.0 * self.params * (tokens - self.config.tokens_before(self.first_step))

    @property
    def flops(self) -> float:
        """Training FLOPs (6ND) of its own updates."""
        return self.flops_before(self.config.train.num_steps)


def ladder_runs(ladder: LadderConfig) -> list[LadderRun]:
    """All runs, the cheapest first: a ladder that is stopped has whole budgets to fit.

    Those that are held out come last. Each plateau comes right before the branch of it that is
    cooled down.
    """
    branches = []
    for index, rung in enumerate(ladder.rungs):
        for peak_lr, seed in itertools.product(rung.learning_rates, rung.seeds):
            of_rate = f"-lr{peak_lr:g}" if rung.other_lrs else ""
            of_size = f"rung{index}{of_rate}-seed{seed}"
            one = dataclasses.replace(rung, peak_lr=peak_lr, other_lrs=())
            held_out = index >= len(ladder.rungs) - ladder.held_out_rungs
            before, first_step = "", 0
            for num_steps in rung.num_steps:
                plateau = ladder.plateau_steps(num_steps)
                stable = LadderRun(
                    name=f"{of_size}-plateau{plateau}",
                    config=_config(ladder, one, seed, plateau, 0),
                    origin=before,
                    first_step=first_step,
                    cooled=False,
                    held_out=held_out,
                )
                cooled = LadderRun(
                    name=f"{of_size}-{num_steps}",
                    config=_config(ladder, one, seed, num_steps, num_steps - plateau),
                    origin=stable.name,
                    first_step=plateau,
                    cooled=True,
                    held_out=held_out,
                )
                branches.append((stable, cooled))
                before, first_step = stable.name, plateau
    # A longer plateau costs more than the one that it goes on from, so it stays behind it.
    branches.sort(key=lambda pair: (pair[1].held_out, pair[1].params * pair[1].tokens))
    return [run for pair in branches for run in pair]


def rung_config(ladder: LadderConfig, rung: Rung, num_steps: int) -> RunConfig:
    """A size of a ladder as one run, cooled down at its end, of the rung's rate and seed 0."""
    alone = dataclasses.replace(rung, num_steps=(num_steps,))
    return _config(ladder, alone, 0, num_steps, num_steps - ladder.plateau_steps(num_steps))


def _config(
    ladder: LadderConfig, rung: Rung, seed: int, num_steps: int, decay_steps: int
) -> RunConfig:
    base = ladder.base
    shortest = ladder.plateau_steps(rung.num_steps[0])
    return dataclasses.replace(
        base,
        name=ladder.name,
        model=rung.model,
        data=dataclasses.replace(base.data, shuffle_seed=seed),
        train=dataclasses.replace(
            base.train, num_steps=num_steps, batch_size=rung.batch_size, seed=seed
        ),
        optimizer=dataclasses.replace(base.optimizer, peak_lr=rung.peak_lr),
        schedule=WarmupStableDecay(
            warmup_steps=round(shortest * ladder.warmup_fraction), decay_steps=decay_steps
        ),
        # What a plateau scores is not used: its cooled branches are.
        evaluate=EvaluateConfig(num_batches=base.evaluate.num_batches if decay_steps else 1),
    )
