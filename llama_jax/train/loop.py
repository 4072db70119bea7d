"""A whole run: begins or resumes, updates, reports, evaluates, saves, and ends or is stopped."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from llama_jax.config import RunConfig
from llama_jax.observe.goodput import WallTime, WorkClock
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.refusal import is_refusal
from llama_jax.sharding import make_mesh, platform, use_layout
from llama_jax.train.beginning import Origin
from llama_jax.train.data import OpenRaw
from llama_jax.train.evaluate import Score
from llama_jax.train.guards import NonFiniteGuard, StopRequest, TrainingFailed, stop_request
from llama_jax.train.hosts import Hosts
from llama_jax.train.ledger import Ledger
from llama_jax.train.parts import Parts, open_parts
from llama_jax.train.recompute import Recompute
from llama_jax.train.schedule import make_schedule
from llama_jax.train.spike_skip import SpikeSkip
from llama_jax.train.spikes import SpikeGuard
from llama_jax.train.state import TrainState
from llama_jax.train.taint import Rewind, note_rewind
from llama_jax.train.watchdog import Watchdog


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: Updates made.
        samples: Global sample counter: rows consumed.
        tokens: Tokens of those rows, padding included.
        skipped_updates: Of the run, for being not finite or, where the guards say so, spikes.
        stopped_by: Signal that stopped it early after saving; empty where it is complete.
        held_out: Scores of each source at the end of a complete run.
        loss_nats_per_token: Mean over the last interval of the log; NaN where there was none.
        seconds_to_first_step: From this start, or a rewind, until the first update was made.
        seconds: From this start, or the last rewind, to the end.
        wall_time: Of all starts of the run.
    """

    step: int
    samples: int
    tokens: int
    skipped_updates: int
    stopped_by: str
    held_out: dict[str, Score]
    loss_nats_per_token: float
    seconds_to_first_step: float
    seconds: float
    wall_time: WallTime


def train(
    config: RunConfig,
    run_dir: Path,
    *,
    origin: Origin | None = None,
    open_raw: OpenRaw | None = None,
    began: float | None = None,
) -> Outcome:
    """Trains to the end, or until asked to stop; started again, it resumes by itself.

    Args:
        config: Of the run.
        run_dir: Folder of the run; made if it is missing.
        origin: Checkpoint of another run to branch off from, where this one has none yet.
        open_raw: Opens raw documents; only a run with `stream` needs it.
        began: When this start began, by `time.monotonic`; now by default.

    Raises:
        ValueError: If the request is wrong; nothing was computed.
        TrainingFailed: If too many updates in a row were not finite, or too many spiked, or the
            data turn out to be damaged on the way.
        CheckpointError: If a checkpoint could not be written or read.
    """
    hosts, clock = Hosts(), WorkClock(began)
    with (
        RunDirectory(run_dir, lock=jax.process_index() == 0) as folder,
        stop_request() as stop,
        use_layout(mesh := make_mesh(config.mesh)),
        Watchdog(folder.path, config.guards, hosts, folder.store) as watchdog,
    ):
        while True:
            watchdog.expect(0, "the start", long=True)
            _share_files(folder, hosts, config.guards.other_deadline_seconds)
            opened = open_parts(
                config, folder, mesh, clock, hosts, origin=origin, open_raw=open_raw
            )
            run: _Run | None = None
            try:
                with opened as (parts, state):
                    run = _Run(parts, stop, watchdog)
                    return run.to_the_end(state)
            except ValueError as error:
                # Once updates are made the request was right: a shard is damaged, say.
                if run is None or not run.seconds_to_first_step or not is_refusal(error):
                    raise
                raise TrainingFailed(str(error)) from error
            except Rewind as rewind:
                note_rewind(folder, config, hosts, rewind)
                clock = WorkClock()


def _share_files(folder: RunDirectory, hosts: Hosts, patience: float) -> None:
    """Has all processes begin from the same small files, of which a bucket gives each a copy."""
    folder.push()
    hosts.meet(patience)
    folder.refresh()


class _Run:
    """A run that is under way."""

    def __init__(self, parts: Parts, stop: StopRequest, watchdog: Watchdog):
        self.config, self.parts, self.stop = parts.config, parts, stop
        self.watchdog = watchdog
        self.clock, self.journal = parts.clock, parts.journal
        self.recompute = Recompute(parts.config, parts.program)
        self.seconds_to_first_step = 0.0
        self.on_cpu = platform() == "cpu"
        train = parts.config.train
        self.learning_rate = make_schedule(
            parts.config.schedule, peak_lr=parts.config.optimizer.peak_lr, num_steps=train.num_steps
        )
        config, before = parts.config.guards, parts.beginning.guards
        spikes = SpikeSkip if config.on_spike == "skip" else SpikeGuard
        self.spikes = spikes(config, self.journal.incident, before.get("spikes", {}))
        self.non_finite = NonFiniteGuard(
            train.max_skipped_updates, parts.documents_of, before.get("non_finite", {})
        )
        guards = [self.non_finite, self.spikes]
        self.ledger = Ledger(guards, parts.config.log.every_steps, self._report, self.clock)

    def to_the_end(self, state: TrainState) -> Outcome:
        """Updates until the last step, or until asked to stop."""
        try:
            return self._train(state)
        except Rewind as rewind:
            self.clock.lap("steps")
            self.parts.goodput.note(rewind.step, end="rewound")
            raise

    def _train(self, state: TrainState) -> Outcome:
        num_steps, evaluate_every = self.config.train.num_steps, self.config.evaluate.every_steps
        done, stopping = self.parts.beginning.step, False
        while done < num_steps and not stopping:
            state = self._update(done, state)
            done += 1
            stopping = self.stop.at(done)
            last = done == num_steps
            if stopping or last:
                self.ledger.end()
            if evaluate_every and done % evaluate_every == 0 and not (stopping or last):
                self.journal.score(done, self._evaluate(done, state))
            if stopping or last or done % self.config.checkpoint.every_steps == 0:
                self._save(done, state, stopping)
            self.parts.checkpointer.poll()
        return self._end(done, state, stopping)

    def _update(self, done: int, state: TrainState) -> TrainState:
        """Makes the update that follows `done` of them."""
        if rows := dict(self.config.train.batch_ramp).get(done):
            self.journal.say(f"batch: {rows} rows from step {done:,} on")
        # The first of its size may wait for its program.
        long = bool(rows) or not self.seconds_to_first_step
        self.watchdog.expect(done, f"update {done + 1:,}", long=long)
        train_step = self.parts.program.step_after(done)
        self.clock.lap("steps")
        batch = next(self.parts.batches)
        # The devices waited too only where they had nothing left to do.
        self.clock.data_seconds += self.clock.lap("data_wait" if self.ledger.idle else "steps")
        learning_rate = np.float32(self.learning_rate(done))
        if self.recompute.due(done + 1):
            self.watchdog.expect(done, f"the check of update {done + 1:,}", long=True)
            self.recompute.check(done + 1, state, batch, learning_rate)
        ceilings = self.spikes.ceilings(done + 1)
        self.clock.lap("steps")
        state, metrics = train_step(state, batch, learning_rate, *ceilings)
        if self.on_cpu:  # where the call itself may compute, and wait for the other processes
            self.clock.device_seconds += self.clock.lap("steps")
        self.ledger.add(done + 1, metrics)
        if not self.seconds_to_first_step:
            jax.block_until_ready(metrics)
            self.clock.lap("steps")
            self.seconds_to_first_step = self.clock.total
            self.journal.say(f"first step after {self.seconds_to_first_step:.1f} s")
        self.journal.advance(done + 1)
        return state

    def _report(self, step: int, metrics: dict[str, float], updates: int, seconds: float) -> None:
        told = {"skipped_updates": float(self.non_finite.skipped)} | dict(self.spikes.metrics)
        self.journal.report(step, metrics | told, updates, seconds)

    def _evaluate(self, done: int, state: TrainState) -> dict[str, Score]:
        self.ledger.flush()
        self.watchdog.expect(done, f"the evaluation after update {done:,}", long=True)
        scores = self.parts.evaluator(state.params)
        self.clock.lap("evaluation")
        return scores

    def _save(self, done: int, state: TrainState, stopping: bool) -> None:
        if stopping:
            self.watchdog.expect_last_save(done)
        self.ledger.flush()
        if not stopping:
            self.watchdog.expect(done, f"checkpoint {done:,}", long=True)
        guards = {"spikes": self.spikes.window, "non_finite": self.non_finite.seen}
        meta = self.parts.meta(done, guards)
        self.journal.keep_order(done, meta["token_order"])
        self.parts.checkpointer.save(done, state, meta)
        self.clock.lap("checkpoint")
        self.parts.goodput.note(done)

    def _end(self, done: int, state: TrainState, stopping: bool) -> Outcome:
        for line in self.parts.data.left_out():
            self.journal.say(line)
        held_out = {} if stopping else self._evaluate(done, state)
        if not stopping and not self.journal.has_scores(done):
            self.journal.score(done, held_out)
        if not stopping:  # of a stop, one deadline is for all
            self.watchdog.expect(done, f"checkpoint {done:,}", long=True)
        self.parts.checkpointer.wait()
        self.clock.lap("checkpoint")
        self.parts.goodput.note(done, end="stopped" if stopping else "complete")
        wall_time = self.parts.goodput.total()
        self.journal.say(f"wall time of all starts: {wall_time}")
        beginning = self.parts.beginning
        return Outcome(
            step=done,
            samples=beginning.samples_at(done, self.config),
            tokens=beginning.tokens_at(done, self.config),
            skipped_updates=self.non_finite.skipped,
            stopped_by=self.stop.name if stopping else "",
            held_out=held_out,
            loss_nats_per_token=self.journal.loss_nats_per_token,
            seconds_to_first_step=self.seconds_to_first_step,
            seconds=self.clock.total,
            wall_time=wall_time,
        )
