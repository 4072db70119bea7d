"""Raw files read and filtered by other processes, several at a time, for training as it goes.

Documents come in the order in which one process would read them: what is read ahead waits.
"""

import collections
import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from llama_jax.config import BuildConfig, Source

from .document import Dropped, RawFile
from .interrupts import interrupts_held
from .stream import RawDocuments, reasons

# Less is read before a process has started.
_WORTH_BYTES = 32 << 20
# Characters of a file that wait, and of a message.
_AHEAD, _BATCH = 32 << 20, 1 << 18
_POLL_SECONDS = 0.1

# Id, text, whether it is held out.
Row = tuple[str, str, bool]


def open_ahead(config: BuildConfig, num_workers: int) -> list[RawDocuments]:
    """The sources of a recipe, of which the larger ones are read by other processes.

    Args:
        config: The recipe.
        num_workers: Processes, shared out by the mixture's weights or the sources' sizes; a source
            that is read by others has one at least.

    Raises:
        ValueError: If a source has no files.
    """
    sources = [RawDocuments(source, config.held_out_fraction) for source in config.sources]
    weights = dict(config.mixture) or {raw.name: float(sum(raw.sizes)) for raw in sources}
    total = sum(weights.values()) or 1.0
    opened: list[RawDocuments] = []
    for source, raw in zip(config.sources, sources, strict=True):
        if sum(raw.sizes) >= _WORTH_BYTES:
            share = num_workers * weights.get(raw.name, 0.0) / total
            raw = ReadAhead(source, config.held_out_fraction, raw.raw_files, max(round(share), 1))
        opened.append(raw)
    return opened


class ReadAhead(RawDocuments):
    """Documents of one source, read by processes that are some files ahead.

    Args:
        source: Its config.
        held_out_fraction: Of its documents.
        files: Of the source.
        num_workers: Processes. What each has read ahead is in memory here.
    """

    def __init__(
        self, source: Source, held_out_fraction: float, files: Sequence[RawFile], num_workers: int
    ):
        super().__init__(source, held_out_fraction, files)
        self._given, self._num_workers = (source, held_out_fraction, files), num_workers
        self._readers: _Readers | None = None
        self._unfinished = Dropped().to_json()

    def expect(self, files: Sequence[int]) -> None:
        """See `RawSource`."""
        if self._readers is not None and not self._readers.is_idle:
            self.close()
        if self._readers is None:
            self._readers = _Readers(self._given, self._num_workers)
        self._readers.read(files)

    def documents(self, file: int, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[Row]:
        """See `RawSource`; of the file that is expected next, or of one that nobody expected."""
        if self._readers is None or self._readers.next_file != file:
            self.expect([file])
        assert self._readers is not None
        for batch in self._readers.take(is_wanted):
            self._unfinished = batch.account
            yield from batch.rows
        if is_wanted():
            self._dropped.merge(self._unfinished)
            self._unfinished = Dropped().to_json()

    def left_out(self) -> Sequence[str]:
        """See `RawSource`."""
        so_far = Dropped()
        for account in (self._dropped.to_json(), self._unfinished):
            so_far.merge(account)
        return reasons(so_far)

    def close(self) -> None:
        """See `RawSource`."""
        if self._readers is not None:
            self._readers.close()
            self._readers = None


class _File:
    """What was read of a file and is not taken yet."""

    def __init__(self, number: int):
        self.number = number
        self.batches: collections.deque[_Batch] = collections.deque()
        self.num_waiting = 0
        self.end: object = None


class _Readers:
    """Processes and a thread for each, which hands it files and takes what it reads."""

    def __init__(self, given: tuple[Source, float, Sequence[RawFile]], num_workers: int):
        self._names = [file.name for file in given[-1]]
        self._changed = threading.Condition()
        self._unread: collections.deque[_File] = collections.deque()
        self._files: collections.deque[_File] = collections.deque()
        self._is_closed = False
        spawn = multiprocessing.get_context("spawn")
        self._processes, self._threads = [], []
        for _ in range(num_workers):
            ours, theirs = spawn.Pipe()
            # Ended with this process, however it ends: their pipe breaks.
            process = spawn.Process(target=_serve, args=(theirs, *given), daemon=True)
            with interrupts_held():
                process.start()
            theirs.close()
            self._processes.append(process)
            self._threads.append(threading.Thread(target=self._drive, args=(ours,), daemon=True))
            self._threads[-1].start()

    @property
    def is_idle(self) -> bool:
        """Whether every file was taken."""
        return not self._files

    @property
    def next_file(self) -> int | None:
        """The one whose documents come next."""
        return self._files[0].number if self._files else None

    def read(self, files: Sequence[int]) -> None:
        """Files to read after those before."""
        with self._changed:
            new = [_File(number) for number in files]
            self._unread.extend(new)
            self._files.extend(new)
            self._changed.notify_all()

    def take(self, is_wanted: Callable[[], bool]) -> Iterator["_Batch"]:
        """What the next file gives.

        Raises:
            ValueError: If the process at work on it died.
        """
        file = self._files[0]
        while is_wanted():
            with self._changed:
                while not file.batches and file.end is None and is_wanted():
                    self._changed.wait(_POLL_SECONDS)
                if not file.batches:
                    break
                batch = file.batches.popleft()
                file.num_waiting -= batch.size
                self._changed.notify_all()
            yield batch
        if file.end is not None and not file.batches:
            self._files.popleft()
            if isinstance(file.end, Exception):
                raise file.end

    def close(self) -> None:
        """Ends the processes, at work or not."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for process in self._processes:
            process.kill()
        for each in (*self._processes, *self._threads):
            each.join()

    def _drive(self, connection: Connection) -> None:
        with connection:
            while (file := self._next()) is not None:
                try:
                    connection.send(file.number)
                    while isinstance(message := connection.recv(), _Batch):
                        self._keep(file, message)
                except (EOFError, OSError):
                    message = ValueError(
                        f"the process that read {self._names[file.number]} died; killed for lack "
                        "of memory, perhaps. Run the command again to go on."
                    )
                with self._changed:
                    file.end = message
                    self._changed.notify_all()

    def _next(self) -> _File | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._unread)
            return None if self._is_closed else self._unread.popleft()

    def _keep(self, file: _File, batch: "_Batch") -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or file.num_waiting < _AHEAD)
            file.batches.append(batch)
            file.num_waiting += batch.size
            self._changed.notify_all()


class _Batch(NamedTuple):
    """Documents of a file, their characters, and what was left out of it so far."""

    rows: list[Row]
    size: int
    account: dict[str, Any]


def _serve(
    connection: Connection, source: Source, held_out_fraction: float, files: Sequence[RawFile]
) -> None:
    """Reads one file after the other, as it is told; ends when nobody is there to tell."""
    raw = RawDocuments(source, held_out_fraction, files)
    # The other end is closed.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            file = connection.recv()
            try:
                for batch in _batches(raw, file):
                    connection.send(batch)
                connection.send("whole")
            except ConnectionError:
                raise
            except Exception as error:
                # Others may not be made again there.
                text = f"{type(error).__name__}: {error}"
                connection.send(
                    error if type(error) in (ValueError, OSError) else RuntimeError(text)
                )


def _batches(raw: RawDocuments, file: int) -> Iterator[_Batch]:
    rows: list[Row] = []
    size = 0
    raw.forget_left_out()
    for row in raw.documents(file):
        rows.append(row)
        size += len(row[1])
        if size >= _BATCH:
            yield _Batch(rows, size, raw.account())
            rows, size = [], 0
    yield _Batch(rows, size, raw.account())
