"""A source's documents as streams of tokens, one a window, read as rows need them."""

import collections
import threading

import numpy as np
from jaxtyping import Int64

from llama_jax.data.order import RowOrder, permutation
from llama_jax.data.packing import count_rows
from llama_jax.data.shards import SplitReader


class Stream:
    """A window's documents end to end in an epoch's order, read where they are first needed."""

    def __init__(self, reader: SplitReader, documents: Int64[np.ndarray, " n"], seq_len: int):
        self._reader, self._documents = reader, documents
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

    def load(self, rows: Int64[np.ndarray, " B"], seq_len: int) -> None:
        """Reads what rows need and is not there yet."""
        lo, hi = self._span(rows, seq_len)
        counts = hi - lo
        needed = np.arange(counts.sum()) + np.repeat(lo - np.cumsum(counts) + counts, counts)
        with self._lock:
            missing = np.unique(needed[~self._loaded[needed]])
            place_of = dict(zip(self._documents[missing].tolist(), missing.tolist(), strict=True))
            for document, tokens in self._reader.read_tokens(place_of):
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


class Source:
    """One source's documents and their order."""

    def __init__(self, reader: SplitReader, seq_len: int, seed: int):
        self.name, self.reader = reader.name, reader
        self._seq_len, self._key = seq_len, (seed, reader.name)
        tokens_of_window = np.diff(reader.windows[:, 1])
        self.order = RowOrder(count_rows(tokens_of_window, seq_len), *self._key)

    def stream(self, epoch: int, window: int) -> Stream:
        (first, _), (end, _) = self.reader.windows[window : window + 2]
        order = permutation(int(end - first), *self._key, "documents", epoch, window)
        return Stream(self.reader, first + order, self._seq_len)


class StreamCache:
    """The streams used last, within a bound on their bytes."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._streams: collections.OrderedDict[tuple[str, int, int], Stream] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, source: Source, epoch: int, window: int) -> Stream:
        """The stream of a source's window in an epoch."""
        key = (source.name, epoch, window)
        with self._lock:
            if key in self._streams:
                self._streams.move_to_end(key)
            else:
                self._streams[key] = stream = source.stream(epoch, window)
                self._num_bytes += stream.num_bytes
                while self._num_bytes > self._max_bytes and len(self._streams) > 1:
                    self._num_bytes -= self._streams.popitem(last=False)[1].num_bytes
            return self._streams[key]
