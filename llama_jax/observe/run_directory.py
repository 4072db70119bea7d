"""The folder of a run: one process at a time, one config, and where each thing lies.

    with RunDirectory(path) as run:                      # locked until the block ends
        changed = run.check(config, resume_step=step)    # lines of permitted differences
        run.adopt(config)                                # from here on the folder is this run's
        run.checkpoints, run.metrics, run.tensorboard    # paths

What may change when a run is continued: how it is computed, saved and watched (`compute`, `mesh`,
`checkpoint`, `evaluate`, `log`, `guards`, and the fields of `MAY_CHANGE`), for none of it changes
what is computed beyond rounding. While a `WarmupStableDecay` schedule has not begun its cooldown,
the length of the run and of the cooldown may change too; and the data may lie elsewhere, where it
is known which data they are. Everything else is refused by name.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llama_jax import recipe
from llama_jax.atomic import write_atomically
from llama_jax.config import RunConfig, WarmupStableDecay
from llama_jax.observe.run_lock import take_lock
from llama_jax.remote.objects import Url, is_remote
from llama_jax.remote.run_files import RunFiles

MAY_CHANGE = (
    "checkpoint.",
    "compute.",
    "evaluate.",
    "guards.",
    "log.",
    "mesh.",
    "train.accumulation_steps",
    "train.max_skipped_updates",
)
_LENGTH = ("schedule.decay_steps", "train.num_steps")


class RunDirectory:
    """Holds a run's folder for this process.

    A run in a bucket has a folder here for its small files, which are stored in the bucket now and
    then, before each checkpoint counts, and at the end; its checkpoints are in the bucket alone.

    Attributes:
        path: The folder, absolute.
        config: Its `config.json`, which is a recipe.
        checkpoints: Folder of the checkpoints.
        metrics: Its `metrics.jsonl`.
        tensorboard: Folder of the event files.
        primary: Whether this process is the one that writes here.

    Args:
        path: Folder of the run, made if it is missing; or a place in a bucket.
        lock: Whether to lock it; among the processes of one run, the first alone does.

    Raises:
        ValueError: If another process of this machine holds it, named by pid and host.
        InUseError: If one of another machine does, and does not let go.
        StorageError: If the bucket cannot be read or written.
    """

    def __init__(self, path: Path, *, lock: bool = True):
        self._files = RunFiles(Url(path), holds=lock) if is_remote(path) else None
        self.path = self._files.folder if self._files else path.absolute()
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.primary = lock
        self._lock: int | None = None
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"run_dir={self.path} is a file; name a folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        if lock and not self._files:
            self._lock = take_lock(self.path)

    def push(self) -> None:
        """Stores what changed, if the run is in a bucket.

        Raises:
            StorageError: If the bucket cannot be written, or another process took the run.
        """
        if self._files:
            self._files.push()

    def store(self, paths: Sequence[Path]) -> None:
        """Stores files of the folder at once, if the run is in a bucket; any process may.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        if self._files:
            self._files.store(paths)

    def refresh(self) -> None:
        """Fetches what the first process stored, if the run is in a bucket and this is another.

        Raises:
            StorageError: If the bucket cannot be read.
        """
        if self._files:
            self._files.refresh()

    def check(
        self, config: RunConfig, *, resume_step: int | None, data_is_known: bool = False
    ) -> list[str]:
        """Refuses a config that does not continue the run that is there; changes nothing.

        Args:
            config: What is about to run.
            resume_step: Updates done by the checkpoint that it continues; None where there is
                no checkpoint yet.
            data_is_known: Whether the caller knows which data the run has read, and compares.

        Returns:
            Lines such as `log.every_steps: 10 -> 20`, one for each permitted difference.

        Raises:
            ValueError: If the folder belongs to a run of another config; names each difference.
        """
        if not self.config.exists():
            return []
        try:
            old: RunConfig = recipe.from_json(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"run_dir={self.path}: config.json cannot be read ({error}). Restore it from a "
                "checkpoint's meta.json, or name another folder."
            ) from error
        lines = recipe.differences(old, config)
        may_change = MAY_CHANGE
        if _length_is_open(old, config, resume_step):
            may_change += _LENGTH
        if data_is_known:
            may_change += ("data.directory",)
        refused = [line for line in lines if not line.startswith(may_change)]
        if refused:
            raise ValueError(
                f"run_dir={self.path} belongs to a run of another config (there -> here):\n  "
                + "\n  ".join(refused)
                + "\nName another folder for this run, or continue the one that is there with "
                f"`llama-jax train {self.config}`."
            )
        return lines

    def adopt(self, config: RunConfig) -> None:
        """Makes `config`, which was checked, the folder's own; only the first process writes."""
        text = recipe.to_json(config)
        if self.primary and not (
            self.config.exists() and self.config.read_text(encoding="utf-8") == text
        ):
            write_atomically(self.config, text)

    def close(self) -> None:
        """Lets the next process in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._files:
            self._files.close()
            self._files = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _length_is_open(old: RunConfig, new: RunConfig, resume_step: int | None) -> bool:
    """Whether no update so far depended on how long the run is."""
    if resume_step is None:
        return False
    schedules = (old.schedule, new.schedule)
    if not all(isinstance(schedule, WarmupStableDecay) for schedule in schedules):
        return False
    return all(
        resume_step <= config.train.num_steps - config.schedule.decay_steps
        for config in (old, new)
        if isinstance(config.schedule, WarmupStableDecay)
    )
