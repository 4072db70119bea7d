"""Where a run begins: at nothing, at its own last checkpoint, or at another run's."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_jax.atomic import write_atomically
from llama_jax.checkpoint import Checkpointer, CheckpointError
from llama_jax.checkpoint.damage import find_newest_good
from llama_jax.config import RunConfig
from llama_jax.data.identity import Identity
from llama_jax.remote.objects import Url, located
from llama_jax.train.taint import Taint, passed_rows, pending, read_taints


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The checkpoint of another run from which a run branches off.

    Attributes:
        run_dir: Folder of that run.
        step: Of the checkpoint.
        data_from_start: Whether data are read from their beginning, and not from where that run
            stood in them.
    """

    run_dir: str
    step: int
    data_from_start: bool = False

    def __str__(self) -> str:
        return f"{self.run_dir}@{self.step}" + ", data from the start" * self.data_from_start


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """Where the next update stands.

    Attributes:
        step: Updates made so far.
        samples: Global sample counter: rows that those updates consumed.
        tokens: Tokens of those rows, padding included.
        first_sample: Counter at which this run's own updates began; above 0 after a branch.
        checkpoints: Folder or place in a bucket to restore from; None to start from the seed.
        resumed: Whether that folder is this run's own.
        damaged: Steps of newer checkpoints there that are damaged, and what is wrong with each.
        origin: Where the run branched off; None where it did not.
        tainted: Why checkpoints after some step are not used, and that step, where this start is
            the first to know of it.
        passed: Rows that are passed over, by the number of updates made before.
        guards: What the checkpoint says of the guards.
        data: What the checkpoint says of the data; None where it says nothing.
        token_order: Which tokens those updates read, and in which order; see `token_order.py`.
        imported: What the parameters were imported from, as the checkpoint says; empty where they
            were not.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    first_sample: int = 0
    checkpoints: Path | Url | None = None
    resumed: bool = False
    damaged: tuple[tuple[int, str], ...] = ()
    origin: Origin | None = None
    tainted: tuple[Taint, ...] = ()
    passed: Mapping[int, int] = dataclasses.field(default_factory=dict)
    guards: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Identity | None = None
    token_order: int = 0
    imported: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def trusted_step(self) -> int | None:
        """Last step whose checkpoint may be used; None where all may."""
        return min((taint.since_step for taint in self.tainted), default=None)

    def samples_at(self, step: int, config: RunConfig) -> int:
        """The sample counter after `step` updates, those before this beginning included."""
        here, there = (
            config.train.rows_before(s) + sum(r for after, r in self.passed.items() if after < s)
            for s in (self.step, step)
        )
        return self.samples + there - here

    def samples_of(self, step: int, config: RunConfig) -> range:
        """The samples that update `step`, counted from 1, consumes."""
        end = self.samples_at(step, config)
        return range(end - config.train.batch_size_at(step - 1), end)

    def tokens_at(self, step: int, config: RunConfig) -> int:
        """Tokens consumed after `step` updates, padding included."""
        return self.tokens + config.tokens_before(step) - config.tokens_before(self.step)


def parse_origin(reference: str, *, data_from_start: bool = False) -> Origin:
    """Reads `RUN` or `RUN@STEP`; without a step, the newest checkpoint that is good.

    Args:
        reference: For people.
        data_from_start: Whether the branch reads data from their beginning.

    Raises:
        ValueError: If there is no such run or checkpoint.
    """
    match = re.fullmatch(r"(.+?)(?:@(\d+))?", reference)
    assert match, "any text is a path, with or without a step"
    folder = Path(match[1])
    checkpoints = Checkpointer(folder / "checkpoints", read_only=True)
    steps, taint = checkpoints.steps(), pending(folder)
    if not steps:
        raise ValueError(f"init_from={reference!r}: {folder} has no checkpoint.")
    trusted = [step for step in steps if taint is None or step <= taint.since_step]
    good = checkpoints.latest_good_step(before=taint and taint.since_step + 1)
    step = good if match[2] is None else int(match[2])
    if step not in trusted:
        there_are = ", ".join(map(str, trusted)) or "none"
        raise ValueError(
            f"init_from={reference!r}: {folder} has no good checkpoint of that step; "
            f"there are: {there_are}{f' ({taint})' if taint else ''}."
        )
    return Origin(run_dir=str(located(folder)), step=step, data_from_start=data_from_start)


def find_beginning(run_dir: Path, config: RunConfig, origin: Origin | None) -> Beginning:
    """Decides where a run begins; changes nothing.

    A run that has a checkpoint goes on from its newest good one, of those that are trusted; all
    bytes of it are read. A
    run that branched off and was killed before its first checkpoint branches off again, even if
    it is not told where from.

    Raises:
        ValueError: If the run in the folder branched off elsewhere, or there is nothing to do.
        CheckpointError: If there are checkpoints and all are damaged.
    """
    known = _read_origin(run_dir)
    taints = read_taints(run_dir)
    begin = Beginning(
        tainted=tuple(taint for taint in taints if not taint.applied),
        passed=passed_rows(taints),
    )
    own = Checkpointer(run_dir / "checkpoints", config.checkpoint, read_only=True)
    step, damaged = find_newest_good(own.directory, at_most=begin.trusted_step)
    if origin is not None and origin != (known if known or step is not None else origin):
        raise ValueError(
            f"init_from={origin}: the run in {run_dir} began from {known or 'its seed'}. "
            "Name another folder with --run-dir, or leave --init-from out to continue it."
        )
    origin = origin or known
    found = tuple((newer, "; ".join(problems[:3])) for newer, problems in damaged.items())
    if step is not None:
        begin = _from_meta(begin, own.meta(step), origin, own.directory, resumed=True)
        return dataclasses.replace(begin, damaged=found)
    if found:
        lines = "".join(f"\n  step {newer}: {problems}" for newer, problems in found)
        raise CheckpointError(
            f"Every checkpoint in {own.directory} is damaged:{lines}\n"
            "Put one back from a copy, or name another --run-dir to begin anew."
        )
    if origin is None:
        return begin
    theirs = Checkpointer(Path(origin.run_dir) / "checkpoints", read_only=True)
    if config.train.num_steps <= origin.step:
        raise ValueError(
            f"train.num_steps={config.train.num_steps} must exceed step {origin.step} of "
            f"init_from={origin.run_dir}: it counts that run's updates too."
        )
    meta = theirs.meta(origin.step)
    # The counter counts rows: of another length, it stands at as many rows as hold the same tokens.
    seq_len = meta["config"]["data"]["seq_len"]
    stood_at = 0 if origin.data_from_start else meta["samples"]
    meta["samples"] = -(-stood_at * seq_len // config.data.seq_len)
    return _from_meta(begin, meta, origin, theirs.directory, resumed=False)


def _from_meta(
    begin: Beginning,
    meta: dict[str, Any],
    origin: Origin | None,
    checkpoints: Path | Url,
    *,
    resumed: bool,
) -> Beginning:
    return dataclasses.replace(
        begin,
        step=meta["step"],
        samples=meta["samples"],
        tokens=meta["tokens"],
        first_sample=meta["first_sample"] if resumed else meta["samples"],
        checkpoints=checkpoints,
        resumed=resumed,
        origin=origin,
        # A branch may have another batch, whose losses are others.
        guards=meta.get("guards", {}) if resumed else {},
        data=Identity.from_json(meta["data"]) if meta.get("data") else None,
        token_order=meta.get("token_order", 0),
        imported=meta.get("imported") or {},
    )


def _read_origin(run_dir: Path) -> Origin | None:
    path = run_dir / "origin.json"
    return Origin(**json.loads(path.read_text())) if path.is_file() else None


def keep_origin(run_dir: Path, origin: Origin | None) -> None:
    """Notes in a run's folder where it branched off, before its first checkpoint does."""
    if origin is None:
        return
    text = json.dumps(dataclasses.asdict(origin), indent=2) + "\n"
    write_atomically(run_dir / "origin.json", text)
