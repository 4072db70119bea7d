"""Where metrics go: `metrics.jsonl` always, TensorBoard and Weights & Biases on request.

    with open_writer(run, config, resume_step=None) as writer:    # or the step of a checkpoint
        writer.write(step, {"loss_nats_per_token": 3.2, "tokens_seen": 40_960, ...})
        writer.write(step, {"heldout/loss_nats_per_token": 3.1, ...})

    read_metrics(path) -> list[dict[str, float]]                  # skips a torn last line

A key is `name`, `split/name` or `split/source/name` ("heldout/python/bits_per_byte"), with the unit
in the name. A run that is resumed from a checkpoint forgets what was written after that step, so
no step ever appears twice.
"""

import contextlib
import importlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from llama_jax import recipe
from llama_jax.config import RunConfig
from llama_jax.observe.run_directory import RunDirectory


class MetricWriter(Protocol):
    """Takes the numbers of a step; steps never go back but by `resume`."""

    def resume(self, step: int) -> None:
        """Forgets what was written after `step`."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""

    def close(self) -> None:
        """Writes what is pending."""


class JsonlWriter:
    """One JSON object a line; a number that is not finite is written as null.

    Args:
        path: The file; made if it is missing, continued if not.
    """

    def __init__(self, path: Path):
        self._path = path
        self._end_torn_line()
        self._file = path.open("a", encoding="utf-8")

    def resume(self, step: int) -> None:
        """Forgets lines after `step`, and those that are no JSON."""
        self._file.close()
        partial = self._path.with_name(f"{self._path.name}.partial")
        with partial.open("wb") as kept:
            for line, record in _records(self._path):
                if record["step"] <= step:
                    kept.write(line)
            kept.flush()
            os.fsync(kept.fileno())
        partial.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line, and hands it to the system at once."""
        values = {name: _json_number(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step} | values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _end_torn_line(self) -> None:
        """Cuts off a last line that a kill left unfinished; the next one must not join it."""
        if not self._path.is_file():
            return
        with self._path.open("rb+") as file:
            position = file.seek(0, os.SEEK_END)
            tail = b""
            while position and b"\n" not in tail:
                start = max(0, position - 65536)
                file.seek(start)
                tail = file.read(position - start) + tail
                position = start
            file.truncate(position + tail.rfind(b"\n") + 1)


class TensorBoardWriter:
    """TensorBoard event files.

    Args:
        folder: Of the event files.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._purge_step: int | None = None
        self._events: Any = None

    def resume(self, step: int) -> None:
        """Has TensorBoard hide what was written after `step`."""
        self.close()
        self._purge_step = step + 1

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a scalar a metric."""
        if self._events is None:
            from tensorboardX import SummaryWriter  # imported at the first line, not at the start

            # The library names a file by its second; two of one second would be one.
            self._events = SummaryWriter(
                str(self._folder),
                purge_step=self._purge_step,
                flush_secs=30,
                filename_suffix=f".{time.time_ns()}",
            )
        for name, value in metrics.items():
            self._events.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Writes what is pending."""
        if self._events is not None:
            self._events.close()
            self._events = None


class WandbWriter:
    """A run of Weights & Biases, continued under the same id when the run is resumed.

    Args:
        project: Name of the project.
        config: Shown with the run; its name names the run.
        folder: Run directory; holds the id.

    Raises:
        ValueError: If the package `wandb` is not installed.
    """

    def __init__(self, project: str, config: RunConfig, folder: Path):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                f"log.wandb_project={project!r} needs the package wandb, which is not installed: "
                "`pip install 'llama-jax[wandb]'`, or set log.wandb_project=''."
            ) from error
        id_file = folder / "wandb_id"
        known = id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else None
        self._run: Any = wandb.init(
            project=project,
            name=config.name,
            id=known,
            resume="allow",
            dir=str(folder),
            config=json.loads(recipe.to_json(config)),
        )
        id_file.write_text(f"{self._run.id}\n", encoding="utf-8")
        # The service drops steps that go back; with an axis of our own, a resumed run may.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def resume(self, step: int) -> None:
        """Does nothing: the service keeps all that it was sent; repeated steps overlap there."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of a step."""
        self._run.log({"step": step} | {name: float(value) for name, value in metrics.items()})

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


class Writers:
    """Several writers as one."""

    def __init__(self, *writers: MetricWriter):
        self._writers = writers

    def resume(self, step: int) -> None:
        """Has each writer forget what was written after `step`."""
        for writer in self._writers:
            writer.resume(step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives each writer the metrics of a step; device arrays are fetched once."""
        numbers = {
            name: value if isinstance(value, int) else float(value)
            for name, value in metrics.items()
        }
        for writer in self._writers:
            writer.write(step, numbers)

    def close(self) -> None:
        """Closes each writer, the others too if one fails."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


@contextlib.contextmanager
def open_writer(
    run: RunDirectory, config: RunConfig, *, resume_step: int | None
) -> Iterator[MetricWriter]:
    """All the writers that `config.log` asks for; none in a process that does not hold the folder.

    Args:
        run: Folder of the run.
        config: Of the run.
        resume_step: Step of the checkpoint that is continued; None for a new run, which forgets
            what an earlier start left without a checkpoint.

    Raises:
        ValueError: If Weights & Biases is asked for and not installed.
    """
    writers: list[MetricWriter] = []
    if run.primary:  # of the processes of one run, one writes
        if config.log.wandb_project:  # first, for it may refuse
            writers.append(WandbWriter(config.log.wandb_project, config, run.path))
        writers.append(JsonlWriter(run.metrics))
        if config.log.tensorboard:
            writers.append(TensorBoardWriter(run.tensorboard))
    writer = Writers(*writers)
    try:
        writer.resume(-1 if resume_step is None else resume_step)
        yield writer
    finally:
        writer.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Records of a `metrics.jsonl`, null read as NaN; lines that are no records are skipped.

    Raises:
        ValueError: If there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; has the run written metrics yet?")
    return [
        {name: math.nan if value is None else value for name, value in record.items()}
        for _, record in _records(path)
    ]


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if (
                line.endswith(b"\n")
                and isinstance(record, dict)
                and type(record.get("step")) is int
            ):
                yield line, record


def _json_number(value: float) -> float | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
