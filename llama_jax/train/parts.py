"""The parts of a run, opened so that all that can be refused is refused before it computes."""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from llama_jax import recipe
from llama_jax.checkpoint import Checkpointer
from llama_jax.checkpoint.damage import saved_steps, set_aside
from llama_jax.checksum import file_sha256
from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.data.dataset import Document
from llama_jax.observe import incidents
from llama_jax.observe.goodput import NAME, GoodputLog, WorkClock
from llama_jax.observe.progress import Progress
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.observe.writers import open_writer
from llama_jax.train.beginning import Beginning, Origin, find_beginning, keep_origin
from llama_jax.train.crash_loop import refuse_crash_loop
from llama_jax.train.data import Data, OpenRaw, open_data
from llama_jax.train.evaluate import Evaluator
from llama_jax.train.feed import feed, local_rows, make_to_devices
from llama_jax.train.hosts import Hosts, Pace
from llama_jax.train.journal import Journal
from llama_jax.train.program import Program, begin_compiling
from llama_jax.train.same_data import check_same_data, keep_identity, known_identity
from llama_jax.train.state import TrainState
from llama_jax.train.taint import mark_applied
from llama_jax.train.token_order import TokenOrder

_LIBRARIES = ("llama-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of, from where it begins.

    Attributes:
        config: Of the run.
        folder: Of the run.
        beginning: Where the next update stands.
        program: What the devices run.
        data: What it reads.
        batches: Of all updates to come.
        token_order: Of all that were handed out.
        evaluator: Scores held-out documents.
        checkpointer: Saves.
        journal: Tells people and files.
        clock: Of this process.
        goodput: The account of all starts.
    """

    config: RunConfig
    folder: RunDirectory
    beginning: Beginning
    program: Program
    data: Data
    batches: Iterator[Batch]
    token_order: TokenOrder
    evaluator: Evaluator
    checkpointer: Checkpointer
    journal: Journal
    clock: WorkClock
    goodput: GoodputLog

    def documents_of(self, step: int) -> list[Document]:
        """What update `step`, counted from 1, read."""
        samples = self.beginning.samples_of(step, self.config)
        return self.data.dataset.documents_of(samples.start, len(samples))

    def meta(self, done: int, guards: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint says beside its arrays: enough to go on, and to run again.

        To be asked by all processes.

        Args:
            done: Updates made.
            guards: What the guards have to know to go on.
        """
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
            "passed": sorted(p for p in self.beginning.passed.items() if p[0] < done),
            "guards": guards,
            "data": self.data.identity.to_json(),
            "token_order": self.token_order.total(),
            "config": json.loads(recipe.to_json(self.config)),
            "versions": {name: version(name) for name in _LIBRARIES},
            # How many rows of the vocabulary mean something, and where they come from.
            **({"imported": dict(imported)} if (imported := self.beginning.imported) else {}),
        }


@contextlib.contextmanager
def open_parts(
    config: RunConfig,
    folder: RunDirectory,
    mesh: Mesh,
    clock: WorkClock,
    hosts: Hosts,
    *,
    origin: Origin | None = None,
    open_raw: OpenRaw | None = None,
) -> Iterator[tuple[Parts, TrainState]]:
    """Opens the parts of a run and its first state, in the mesh's layout, which is current.

    Raises:
        ValueError: If the request is wrong; nothing was computed.
        CheckpointError: If there are checkpoints and all are damaged.
    """
    patience = config.guards.other_deadline_seconds
    with contextlib.ExitStack() as stack:
        hosts.meet(patience)
        beginning = find_beginning(folder.path, config, origin)
        resume_step = beginning.step if beginning.resumed else None
        known = known_identity(folder.path, beginning)
        changed = folder.check(config, resume_step=resume_step, data_is_known=known is not None)
        data = stack.enter_context(
            open_data(config, folder.path, open_raw, write=folder.primary, origin=beginning.origin)
        )
        check_same_data(folder.path, beginning, data)
        refuse_crash_loop(config, folder, beginning, data.dataset, hosts)
        token_order = TokenOrder(config, mesh, hosts, beginning.token_order)
        batches = feed(
            config,
            mesh,
            data.dataset,
            step=beginning.step,
            first_sample=beginning.samples,
            passed=beginning.passed,
            fed=token_order.add,
        )
        stack.enter_context(contextlib.closing(batches))
        rows = local_rows(config, mesh, config.train.batch_size)
        to_devices = make_to_devices(config, mesh, rows, config.train.batch_size)
        # May refuse the request: while a thread compiles, Python cannot end in peace.
        held_out = data.held_out(rows=rows)
        program = begin_compiling(config, mesh, beginning.step)
        # While the step compiles: the files of the run.
        hosts.meet(patience)
        checkpointer = stack.enter_context(
            Checkpointer(folder.checkpoints, config.checkpoint, before_commit=folder.push)
        )
        if folder.primary:
            _put_aside(folder, beginning)
        state = _first_state(program, beginning)
        writer = stack.enter_context(open_writer(folder, config, resume_step=resume_step))
        progress = stack.enter_context(_open_progress(config, beginning, folder.primary))
        left = beginning.step < config.train.num_steps
        goodput = GoodputLog(
            folder.path / NAME, clock, step=beginning.step, write=folder.primary and left
        )
        journal = Journal(
            config,
            data.dataset,
            beginning,
            mesh,
            folder,
            progress,
            writer,
            goodput,
            Pace(hosts, clock),
        )
        journal.announce(program.abstract, changed, scored=held_out)
        clock.lap("start_up")
        if left:
            program.step_after(beginning.step)  # what waits for it is not training
        # All that could be refused was not: from here on the folder is this run's.
        folder.adopt(config)
        if folder.primary:
            keep_origin(folder.path, beginning.origin)
            keep_identity(folder.path, data)
            _keep_tokenizer(data, folder.path)
        hosts.meet(patience)
        clock.lap("compile")
        parts = Parts(
            config=config,
            folder=folder,
            beginning=beginning,
            program=program,
            data=data,
            batches=batches,
            token_order=token_order,
            evaluator=Evaluator(program.graphdef, config, held_out, to_devices=to_devices),
            checkpointer=checkpointer,
            journal=journal,
            clock=clock,
            goodput=goodput,
        )
        yield parts, state


def _put_aside(folder: RunDirectory, beginning: Beginning) -> None:
    """Renames checkpoints that are not used, and keeps the reasons."""
    for step, problems in beginning.damaged:
        set_aside(folder.checkpoints, step)
        incidents.note(folder.path, "damaged checkpoint", step, problems)
    if (trusted := beginning.trusted_step) is not None:
        for step in saved_steps(folder.checkpoints):
            if step > trusted:
                set_aside(folder.checkpoints, step, "tainted")
        for taint in beginning.tainted:
            incidents.note(folder.path, "taint", taint.since_step, str(taint))
        # Last: a kill before this repeats what was done, and finds nothing left to do.
        mark_applied(folder.path)


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
    if not ours.is_file() or file_sha256(ours) != data.identity.tokenizer:
        partial = ours.with_name(f"{ours.name}.partial")
        shutil.copyfile(data.tokenizer, partial)
        partial.replace(ours)
