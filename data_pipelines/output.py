"""Which folders a build may write to: its own, one build at a time."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.config import BuildConfig
from llama_jax.data.shards import BUILD, MANIFEST
from llama_jax.data.tokenizer import SENTENCEPIECE_NAME, TIKTOKEN_NAME
from llama_jax.recipe import differences, from_json

from .assemble import REPORT
from .dropped_rows import DROPPED_FOLDER
from .report import REPORT_PAGE
from .tables import DOCUMENTS_FOLDER

WORK = ".build"


class AnotherConfigError(ValueError):
    """A dataset of another config is where one should go."""


def finished(config: BuildConfig, out: Path) -> dict[str, Any] | None:
    """The finished build in `out`, if it is of this config."""
    path = out / BUILD
    return checked_summary(path.read_text(), config, str(out)) if path.is_file() else None


def checked_summary(text: str, config: BuildConfig, out: str) -> dict[str, Any]:
    """The contents of the `build.json` of a finished build.

    Raises:
        ValueError: If it is of another config.
    """
    summary = json.loads(text)
    before = from_json(json.dumps(summary["config"]), BuildConfig)
    if changes := differences(before, config):
        raise AnotherConfigError(
            f"--out {out} holds a dataset of another config: {'; '.join(changes)}. Build into "
            "another folder, or delete this one."
        )
    return summary


def refuse_where_inputs_are(config: BuildConfig, option: str, folder: Path | str) -> None:
    """Refuses a folder or URL that a build would write to and read from, and a file."""
    if isinstance(folder, Path) and folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} {folder} is a file; give a folder.")
    for source in config.sources:
        path = getattr(source, "path", "")
        if path and _is_inside(folder, path):
            raise ValueError(
                f"{option} {folder} is inside sources.{source.name}.path={path!r}: a build started "
                "again would read what it has written. Give a folder elsewhere."
            )


def _is_inside(folder: Path | str, path: str) -> bool:
    if isinstance(folder, str):
        return f"{folder.rstrip('/')}/".startswith(f"{path.rstrip('/')}/")
    return "://" not in path and folder.resolve().is_relative_to(Path(path).resolve())


def refuse_foreign(out: Path) -> None:
    """Refuses a folder in which a build would overwrite what no build has written."""
    ours = {WORK, ".lock", DOCUMENTS_FOLDER, DROPPED_FOLDER, REPORT, REPORT_PAGE}
    ours |= {SENTENCEPIECE_NAME, TIKTOKEN_NAME}
    foreign = [
        path.name
        for path in sorted(out.iterdir())
        if path.name not in ours and not (path / MANIFEST).is_file()
    ]
    if foreign:
        raise ValueError(
            f"--out {out} is not empty: it has {', '.join(foreign[:5])}. Build into a folder of "
            "its own."
        )


@contextlib.contextmanager
def lock(folder: Path, option: str) -> Iterator[None]:
    """Holds a folder for one build.

    Raises:
        ValueError: If another one has it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{option} {folder}: another build is writing there; wait for it."
            ) from error
        yield
