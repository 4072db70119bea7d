"""Where in the raw files each window of a stream begins: a file that grows with the stream."""

import bisect
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_jax.atomic import write_atomically
from llama_jax.data.packing import count_rows


class Place(NamedTuple):
    """A place in a source's endless sequence of documents.

    Attributes:
        epoch: Passes over the source before it.
        turn: Which file of the epoch it is in, in the epoch's order of files.
        record: Documents of that file before it.
    """

    epoch: int = 0
    turn: int = 0
    record: int = 0


class Window(NamedTuple):
    """So many documents side by side.

    Attributes:
        epoch: Passes over the source before it.
        turn: Of the file in which it begins.
        record: Documents of that file before it.
        file: Name of that file, for people.
        documents: In it, for training.
        tokens: Of those.
    """

    epoch: int
    turn: int
    record: int
    file: str
    documents: int
    tokens: int

    @property
    def place(self) -> Place:
        """Where it begins."""
        return Place(self.epoch, self.turn, self.record)


class WindowIndex:
    """The windows of a source that were read so far, all epochs in a row.

    Attributes:
        windows: In order.
        num_rows: Rows cut from all of them.

    Args:
        seq_len: Tokens of a row.
        path: File that they are in; a last line that was cut off does not count.
        write: Whether to add to that file.
    """

    def __init__(self, seq_len: int, path: Path, *, write: bool):
        self.windows: list[Window] = []
        self.num_rows = 0
        self._seq_len, self._write, self._path = seq_len, write, path
        self._first_rows: list[int] = []
        self._first_documents: list[int] = []
        self._num_documents = 0
        self._size = 0
        if path.is_file():
            self._read(path.read_bytes())

    def add(self, window: Window) -> None:
        """Appends a window that follows the last."""
        line = json.dumps(window).encode() + b"\n"
        if self._write:
            with self._path.open("r+b" if self._path.exists() else "wb") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        self._append(window, len(line))

    def at_row(self, row: int) -> int:
        """Number of the window that has a row of all rows."""
        return bisect.bisect_right(self._first_rows, row) - 1

    def first_row(self, number: int) -> int:
        """Rows of all windows before one."""
        return self._first_rows[number]

    def first_document(self, number: int) -> int:
        """Documents of all windows before one."""
        return self._first_documents[number]

    def _read(self, content: bytes) -> None:
        for line in content.splitlines(keepends=True):
            try:
                epoch, turn, record, file, documents, tokens = json.loads(line)
            except (ValueError, TypeError):
                return
            if not line.endswith(b"\n"):
                return
            self._append(Window(epoch, turn, record, file, documents, tokens), len(line))

    def _append(self, window: Window, num_bytes: int) -> None:
        # Last of all what other threads look at first.
        self._first_rows.append(self.num_rows)
        self._first_documents.append(self._num_documents)
        self.windows.append(window)
        self._size += num_bytes
        self._num_documents += window.documents
        self.num_rows += int(count_rows(np.array([window.tokens]), self._seq_len)[0])


def adopt_files(path: Path, made_from: dict[str, str], what: str, *, write: bool) -> None:
    """Notes what a stream is made from, or compares it with what was noted.

    Args:
        path: The note.
        made_from: What changes when a file does, by its name.
        what: Whose files they are, for the message.
        write: Whether to write the note where there is none.

    Raises:
        ValueError: If files have changed; names the first few.
    """
    if not path.is_file():
        if write:
            write_atomically(path, json.dumps(made_from) + "\n")
        return
    before = json.loads(path.read_text())
    if changed := sorted(
        name for name in before | made_from if before.get(name) != made_from.get(name)
    ):
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ValueError(
            f"{what}: {', '.join(changed[:5])}{more} changed since this run began, so that what it "
            "sees would change too. Put the files back as they were (their times of change "
            "count), or begin another run. If nothing but the times changed, delete "
            f"{path.parent}: the run then reads from the beginning to find its place."
        )
