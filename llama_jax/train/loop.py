"""A whole run: begins or resumes, updates, reports, evaluates, saves, and ends or is stopped."""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llama_jax import recipe
from llama_jax.checkpoint import Checkpointer
from llama_jax.checkpoint.damage import set_aside
from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.data.dataset import Document
from llama_jax.observe.progress import Progress
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.observe.writers import open_writer
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.beginning import Beginning, Origin, find_beginning, keep_origin
from llama_jax.train.data import Data, OpenRaw, open_data
from llama_jax.train.evaluate import Evaluator, Score
from llama_jax.train.feed import feed, local_rows, make_to_devices
from llama_jax.train.guards import NonFiniteGuard, StopRequest, stop_request
from llama_jax.train.journal import Journal
from llama_jax.train.ledger import Ledger
from llama_jax.train.program import Program, begin_compiling
from llama_jax.train.schedule import make_schedule
from llama_jax.train.state import TrainState
from llama_jax.train.step import Metrics

_LIBRARIES = ("llama-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: Updates made.
        samples: Global sample counter: rows consumed.
        tokens: Tokens of those rows, padding included.
        skipped_updates: Of this process, for being not finite.
        stopped_by: Signal that stopped it early after saving; empty where it is complete.
        held_out: Scores of each source at the end of a complete run.
        loss_nats_per_token: Mean over the last interval of the log; NaN where there was none.
        seconds_to_first_step: From the call until the first update was made.
        seconds: From the call to the end.
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


def train(
    config: RunConfig,
    run_dir: Path,
    *,
    origin: Origin | None = None,
    open_raw: OpenRaw | None = None,
) -> Outcome:
    """Trains to the end, or until asked to stop; started again, it resumes by itself.

    Args:
        config: Of the run.
        run_dir: Folder of the run; made if it is missing.
        origin: Checkpoint of another run to branch off from, where this one has none yet.
        open_raw: Opens raw documents; only a run with `stream` needs it.

    Raises:
        ValueError: If the request is wrong; nothing was computed.
        TrainingFailed: If too many updates in a row were not finite.
        CheckpointError: If a checkpoint could not be written or read.
    """
    started = time.monotonic()
    primary = jax.process_index() == 0
    with (
        RunDirectory(run_dir, lock=primary) as folder,
        stop_request() as stop,
        use_layout(mesh := make_mesh(config.mesh)),
        contextlib.ExitStack() as stack,
    ):
        # What can be refused is refused before anything is compiled.
        beginning = find_beginning(folder.path, config, origin)
        resume_step = beginning.step if beginning.resumed else None
        changed = folder.adopt(config, resume_step=resume_step)
        batch_size = config.train.batch_size
        data = stack.enter_context(
            open_data(config, folder.path, open_raw, write=primary, origin=beginning.origin)
        )
        batches = stack.enter_context(
            contextlib.closing(
                feed(
                    config, mesh, data.dataset, step=beginning.step, first_sample=beginning.samples
                )
            )
        )
        program = begin_compiling(config, mesh, beginning.step)
        rows = local_rows(config, mesh, batch_size)
        to_devices = make_to_devices(config, mesh, rows, batch_size)
        held_out = data.held_out(rows=rows)
        evaluator = Evaluator(program.graphdef, config, held_out, to_devices=to_devices)
        # While the step compiles: the first state, the files of the run.
        if primary:
            keep_origin(folder.path, beginning.origin)
            _keep_tokenizer(data, folder.path)
        checkpointer = stack.enter_context(Checkpointer(folder.checkpoints, config.checkpoint))
        for step, _ in beginning.damaged if primary else ():
            set_aside(folder.checkpoints, step)
        state = _first_state(program, beginning)
        writer = stack.enter_context(open_writer(folder, config, resume_step=resume_step))
        if beginning.step < config.train.num_steps:
            program.step_after(beginning.step)  # what waits for it is not training
        progress = stack.enter_context(_open_progress(config, beginning, primary))
        journal = Journal(config, data.dataset, beginning, mesh, progress, writer, folder.metrics)
        journal.announce(program.abstract, changed, scored=held_out)
        run = _Run(
            config=config,
            beginning=beginning,
            program=program,
            data=data,
            journal=journal,
            evaluator=evaluator,
            checkpointer=checkpointer,
            stop=stop,
            started=started,
        )
        return run.to_the_end(state, batches)


@dataclasses.dataclass(kw_only=True)
class _Run:
    """The parts of a run that is under way."""

    config: RunConfig
    beginning: Beginning
    program: Program
    data: Data
    journal: Journal
    evaluator: Evaluator
    checkpointer: Checkpointer
    stop: StopRequest
    started: float
    seconds_to_first_step: float = 0.0

    def to_the_end(self, state: TrainState, batches: Iterator[Batch]) -> Outcome:
        """Updates until the last step, or until asked to stop."""
        train, evaluate = self.config.train, self.config.evaluate
        learning_rate = make_schedule(
            self.config.schedule, peak_lr=self.config.optimizer.peak_lr, num_steps=train.num_steps
        )
        guard = NonFiniteGuard(train.max_skipped_updates, self._documents_of)
        ledger = Ledger(guard, self.config.log.every_steps, self.journal.report)
        done, stopping = self.beginning.step, False
        while done < train.num_steps and not stopping:
            if rows := dict(train.batch_ramp).get(done):
                self.journal.say(f"batch: {rows} rows from step {done:,} on")
            train_step = self.program.step_after(done)
            state, metrics = train_step(state, next(batches), np.float32(learning_rate(done)))
            done += 1
            ledger.add(done, metrics)
            self._note_first_step(done, metrics)
            self.journal.advance(done)
            stopping = self.stop.at(done)
            last = done == train.num_steps
            if evaluate.every_steps and done % evaluate.every_steps == 0 and not (stopping or last):
                with ledger.paused():
                    self.journal.score(done, self.evaluator(state.params))
            if stopping or last or done % self.config.checkpoint.every_steps == 0:
                ledger.flush()
                self.checkpointer.save(done, state, self._meta(done))
            self.checkpointer.poll()
        for line in self.data.left_out():
            self.journal.say(line)
        held_out = {} if stopping else self.evaluator(state.params)
        if not stopping and not self.journal.has_scores(done):
            self.journal.score(done, held_out)
        self.checkpointer.wait()
        return Outcome(
            step=done,
            samples=self.beginning.samples_at(done, self.config),
            tokens=self.beginning.tokens_at(done, self.config),
            skipped_updates=guard.total,
            stopped_by=self.stop.name if stopping else "",
            held_out=held_out,
            loss_nats_per_token=self.journal.loss_nats_per_token,
            seconds_to_first_step=self.seconds_to_first_step,
            seconds=time.monotonic() - self.started,
        )

    def _note_first_step(self, done: int, metrics: Metrics) -> None:
        if done == self.beginning.step + 1:
            jax.block_until_ready(metrics)
            self.seconds_to_first_step = time.monotonic() - self.started
            self.journal.say(f"first step after {self.seconds_to_first_step:.1f} s")

    def _meta(self, done: int) -> dict[str, Any]:
        """What a checkpoint says beside its arrays: enough to go on, and to run again."""
        samples = self.beginning.samples_at(done, self.config)
        origin = self.beginning.origin
        return {
            "step": done,
            "samples": samples,
            "first_sample": self.beginning.first_sample,
            "tokens": self.beginning.tokens_at(done, self.config),
            "seed": self.config.train.seed,
            "epochs": self.data.dataset.epochs(samples),
            "origin": dataclasses.asdict(origin) if origin else None,
            "config": json.loads(recipe.to_json(self.config)),
            "versions": {name: version(name) for name in _LIBRARIES},
        }

    def _documents_of(self, step: int) -> list[Document]:
        start, end = (self.beginning.samples_at(s, self.config) for s in (step - 1, step))
        return self.data.dataset.documents_of(start, end - start)


def _first_state(program: Program, beginning: Beginning) -> TrainState:
    """The state that the first update of this process reads."""
    if beginning.checkpoints is None:
        return program.first_state()
    with Checkpointer(beginning.checkpoints, read_only=True) as checkpointer:
        # This run's own was read to the last byte when it was chosen.
        state, _ = checkpointer.restore(
            beginning.step, program.abstract, deep=not beginning.resumed
        )
    return state


def _open_progress(config: RunConfig, beginning: Beginning, primary: bool) -> Progress:
    # Only the first process has somebody to talk to.
    file = sys.stderr if primary else io.StringIO()
    return Progress("train", total=config.train.num_steps, done=beginning.step, file=file)


def _keep_tokenizer(data: Data, run_dir: Path) -> None:
    """Copies the tokenizer beside the checkpoints, which are of no use without it."""
    ours = run_dir / data.tokenizer_name
    if not ours.is_file():
        partial = ours.with_name(f"{ours.name}.partial")
        shutil.copyfile(data.tokenizer, partial)
        partial.replace(ours)
