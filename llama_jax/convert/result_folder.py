"""The folder that a conversion writes: complete or absent, and gone on with after a stop.

It is filled as `.NAME.partial/result` beside its final name, next to a journal of what is whole.
A conversion that was stopped leaves both; the same request finds them, compares what the journal
lists with its digests, and writes the rest.
"""

import contextlib
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from llama_jax.atomic import flush
from llama_jax.convert.certificate import digest
from llama_jax.remote.objects import is_remote, shown

_JOURNAL, _RESULT = "journal.jsonl", "result"
_FLUSHED_AT_ONCE = 16


class Unfinished:
    """A folder on its way, and what was whole in it when an earlier start was stopped.

    Attributes:
        folder: To fill.
    """

    def __init__(self, folder: Path, journal: "Journal", place: str = ""):
        self.folder = folder
        self._journal, self._place = journal, place

    def below(self, name: str) -> "Unfinished":
        """A folder inside, whose parts are recorded apart from those of the same names outside."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return Unfinished(folder, self._journal, f"{self._place}{name}/")

    def known(self, name: str) -> Any:
        """What an earlier start recorded of a part; None where it recorded nothing."""
        return self._journal.known.get(self._place + name)

    def known_file(self, name: str) -> dict[str, Any] | None:
        """What an earlier start recorded of a file, if its bytes still have that SHA-256."""
        entry, path = self.known(name), self.folder / name
        if entry is None or not path.is_file():
            return None
        return entry if digest(path)["sha256"] == entry["sha256"] else None

    def record(self, name: str, entry: Any) -> None:
        """Notes that a part is whole; threads may call it."""
        self._journal.append([self._place + name, entry])


class Journal:
    """What is whole in a folder, a line a part, for the same request alone.

    Attributes:
        known: What earlier starts recorded, by name; empty where they were for another request.
        goes_on: Whether an earlier start was for the same request.
    """

    def __init__(self, file: BinaryIO, request: dict[str, Any] | None):
        self._file, self._lock = file, threading.Lock()
        file.seek(0)
        values, end = [], 0
        for line in file.read().splitlines(keepends=True):
            try:
                value = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            values.append(value)
            end += len(line)
        same = values[:1] == [json.loads(json.dumps(request))]
        self.goes_on = request is not None and same
        self.known: dict[str, Any] = dict(values[1:]) if self.goes_on else {}
        # A line that was cut must not be continued by the next.
        file.truncate(end if self.goes_on else 0)
        if not self.goes_on:
            self.append(request)

    def append(self, value: Any) -> None:
        """Adds a line; threads may call it."""
        line = json.dumps(value).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()


@contextlib.contextmanager
def result_folder(
    out_dir: Path,
    request: dict[str, Any] | None,
    *,
    on_known: Callable[[int], None] = lambda count: None,
) -> Iterator[Unfinished]:
    """Gives a folder to fill, which gets its final name when the block ends.

    A refusal (ValueError) removes it; after any other stop it waits for the same request.

    Args:
        out_dir: Final name; must be absent or empty.
        request: What decides every byte of the parts that are recorded, so that they can be kept;
            None keeps nothing.
        on_known: Called with the number of parts that an earlier start recorded, if any.

    Raises:
        ValueError: If `out_dir` is in use, or another process is writing it.
    """
    check_out_dir(out_dir)
    home = _home(out_dir)
    home.mkdir(parents=True, exist_ok=True)
    if foreign := sorted({path.name for path in home.iterdir()} - {_JOURNAL, _RESULT}):
        raise ValueError(
            f"{home} has {foreign[0]}, which no conversion wrote; move it, or name another OUT_DIR."
        )
    with (home / _JOURNAL).open("a+b") as file:
        _take_lock(file, out_dir)
        # Another process may have ended meanwhile.
        check_out_dir(out_dir)
        result = home / _RESULT
        journal = Journal(file, request)
        if not journal.goes_on:
            shutil.rmtree(result, ignore_errors=True)
        result.mkdir(exist_ok=True)
        if journal.known:
            on_known(len(journal.known))
        try:
            yield Unfinished(result, journal)
            _flush_tree(result)
            # An empty folder in its place is replaced; one filled meanwhile makes this fail.
            result.replace(out_dir)
            flush(out_dir.parent)
        except BaseException as error:
            if request is None or isinstance(error, ValueError):
                shutil.rmtree(home, ignore_errors=True)
            raise
        shutil.rmtree(home, ignore_errors=True)


def bytes_written(out_dir: Path) -> int:
    """Bytes of files that an earlier start left for the same folder."""
    result = _home(out_dir) / _RESULT
    return sum(path.stat().st_size for path in result.rglob("*") if path.is_file())


def check_out_dir(out_dir: Path) -> None:
    """Refuses a folder that holds anything.

    Raises:
        ValueError: If it does, or is a file, or in a bucket.
    """
    if is_remote(out_dir):
        raise ValueError(
            f"OUT_DIR={shown(out_dir)!r} is in a bucket; results are written to a folder of a file "
            "system: name one, and copy it (`gcloud storage cp -r` or `aws s3 cp --recursive`)."
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ValueError(
            f"OUT_DIR={str(out_dir)!r} is already in use; name an empty or a new folder: an "
            "export never overwrites."
        )


def _home(out_dir: Path) -> Path:
    return out_dir.parent / f".{out_dir.name}.partial"


def _take_lock(file: BinaryIO, out_dir: Path) -> None:
    busy = f"OUT_DIR={str(out_dir)!r}: another conversion is writing it; wait for it."
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(busy) from error
    if not os.fstat(file.fileno()).st_nlink:
        # The other one ended between our opening and our locking, and took the file with it.
        raise ValueError(busy)


def _flush_tree(folder: Path) -> None:
    # A file system's journal takes many files at once, if they are flushed at once.
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        list(pool.map(flush, [*folder.rglob("*"), folder]))
