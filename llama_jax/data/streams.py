"""A source's documents as streams of tokens, one a window, read as rows need them."""

import collections
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int64

from llama_jax.data.documents import DocumentReader
from llama_jax.data.order import RowOrder, permutation
from llama_jax.data.packing import count_rows
from llama_jax.data.shards import SplitReader


class Stream:
    """A window's documents end to end in an epoch's order, read where they are first needed.

    Args:
        reader: Of the documents.
        documents: Numbers of the window's documents, in order.
        seq_len: Tokens of a row.
        first_number: What document 0 of the reader is numbered in the source.

    Attributes:
        reader: Of the documents.
    """

    def __init__(
        self,
        reader: DocumentReader,
        documents: Int64[np.ndarray, " n"],
        seq_len: int,
        first_number: int = 0,
    ):
        self.first_number = first_number
        self.reader, self._documents = reader, documents
        lengths = reader.num_tokens_of[documents].astype(np.int64)
        ends = np.cumsum(lengths)
        self.starts = ends - lengths
        self.num_tokens = int(ends[-1])
        padded = int(count_rows(ends[-1:], seq_len)[0]) * seq_len + 1
        # Pages of memory come into being as documents are read into them.
        self.tokens = np.zeros(padded, reader.dtype)
        self.num_bytes = self.tokens.nbytes + 2 * self.starts.nbytes
        self._loaded = np.zeros(len(documents), bool)
        self._lock = threading.Lock()

    def documents(self, row: int, seq_len: int) -> Int64[np.ndarray, " m"]:
        """Indices of the documents whose tokens are inputs of a row."""
        lo, hi = self._span(np.array([row]), seq_len)
        return self._documents[lo[0] : hi[0]]

    def document_id(self, document: int) -> str:
        """The id of one of `documents`."""
        return self.reader.document_id(document)

    def load(self, rows: Int64[np.ndarray, " B"], seq_len: int) -> None:
        """Reads what rows need and is not there yet."""
        lo, hi = self._span(rows, seq_len)
        counts = hi - lo
        needed = np.arange(counts.sum()) + np.repeat(lo - np.cumsum(counts) + counts, counts)
        with self._lock:
            missing = np.unique(needed[~self._loaded[needed]])
            place_of = dict(zip(self._documents[missing].tolist(), missing.tolist(), strict=True))
            for document, tokens in self.reader.read_tokens(place_of):
                start = self.starts[place_of[document]]
                self.tokens[start : start + len(tokens)] = tokens
            self._loaded[missing] = True

    def _span(
        self, rows: Int64[np.ndarray, " B"], seq_len: int
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        # A document that begins right after a row gives it no target.
        first = rows * seq_len
        lo = np.searchsorted(self.starts, first, side="right") - 1
        return lo, np.searchsorted(self.starts, first + seq_len, side="left")


class Piece(NamedTuple):
    """What one stream has of some samples.

    Attributes:
        stream: That has it.
        where: Which of the samples.
        rows: Rows of the stream that those are.
    """

    stream: Stream
    where: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]


class Source(Protocol):
    """One source's documents and their order.

    Attributes:
        name: Of the source.
    """

    name: str

    @property
    def tokens_per_epoch(self) -> int:
        """Of all its documents; 0 while that is not known."""
        ...

    def pieces(self, ranks: Int64[np.ndarray, " n"], streams: "StreamCache") -> Iterator[Piece]:
        """Where the `ranks`-th samples of this source, ascending, lie; one stream at a time."""
        ...

    def epochs(self, rank: int) -> float | None:
        """Passes that the first `rank` samples of this source make up; None if not known yet."""
        ...


class ShardSource:
    """A source in shards."""

    def __init__(self, reader: SplitReader, seq_len: int, seed: int):
        self.name, self.reader = reader.name, reader
        self._seq_len, self._key = seq_len, (seed, reader.name)
        tokens_of_window = np.diff(reader.windows[:, 1])
        self.order = RowOrder(count_rows(tokens_of_window, seq_len), *self._key)

    @property
    def tokens_per_epoch(self) -> int:
        """Of all its documents."""
        return int(self.reader.windows[-1, 1])

    def pieces(self, ranks: Int64[np.ndarray, " n"], streams: "StreamCache") -> Iterator[Piece]:
        """Where samples lie; see `Source`."""
        place = self.order.locate(ranks)
        pairs = np.stack([place.epoch, place.window], axis=1)
        for epoch, window in np.unique(pairs, axis=0).tolist():
            where = np.flatnonzero((pairs == (epoch, window)).all(axis=1))
            stream = streams.get(
                (self.name, epoch, window), lambda at=(epoch, window): self.stream(*at)
            )
            yield Piece(stream, where, place.row[where])

    def epochs(self, rank: int) -> float:
        """Passes that the first `rank` samples make up."""
        return rank / self.order.rows_per_epoch

    def stream(self, epoch: int, window: int) -> Stream:
        """A window's documents in the order of an epoch."""
        (first, _), (end, _) = self.reader.windows[window : window + 2]
        order = permutation(int(end - first), *self._key, "documents", epoch, window)
        return Stream(self.reader, first + order, self._seq_len)


class StreamCache:
    """The streams used last, within a bound on their bytes."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._streams: collections.OrderedDict[tuple[object, ...], Stream] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], Stream]) -> Stream:
        """The stream of that key; made, by one thread at a time, where it is not there."""
        with self._lock:
            if key in self._streams:
                self._streams.move_to_end(key)
            else:
                self._streams[key] = stream = make()
                self._num_bytes += stream.num_bytes
                while self._num_bytes > self._max_bytes and len(self._streams) > 1:
                    self._num_bytes -= self._streams.popitem(last=False)[1].num_bytes
            return self._streams[key]
