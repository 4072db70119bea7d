"""Training samples straight from raw documents: the same rows wherever a run is stopped."""

import bisect
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from llama_jax.config import BuildConfig, DataConfig
from llama_jax.data.dataset import (
    DEFAULT_CACHE_BYTES,
    Dataset,
    check_mixture,
    check_vocabulary,
)
from llama_jax.data.documents import DocumentsInMemory
from llama_jax.data.identity import Identity
from llama_jax.data.order import Mixture, permutation
from llama_jax.data.packing import count_rows
from llama_jax.data.raw import Filled, RawSource, WindowReader, file_order
from llama_jax.data.shards import token_dtype
from llama_jax.data.streams import Piece, Stream, StreamCache
from llama_jax.data.tokenizer import Tokenizer
from llama_jax.data.window_index import Place, WindowIndex, adopt_files

# So near a reader's next window, going on is quicker than beginning again.
_SKIPPED_AT_MOST = 8


class StreamedSource:
    """A source that is read from raw files; its windows are known as far as they were read.

    Args:
        raw: The source.
        tokenizer: Of the run.
        index: Windows that were read before.
        seq_len: Tokens of a row.
        seed: Of the order of files, documents and rows.
        held_out: File that keeps the documents to score.
        write: Whether to write that file.
        num_threads: Of the tokenizer.
    """

    def __init__(
        self,
        raw: RawSource,
        tokenizer: Tokenizer,
        index: WindowIndex,
        *,
        seq_len: int,
        seed: int,
        held_out: Path,
        write: bool,
        num_threads: int,
    ):
        self.name = raw.name
        self._raw, self._tokenizer, self._index = raw, tokenizer, index
        self._seq_len, self._seed, self._num_threads = seq_len, seed, num_threads
        self._held_out_path, self._write = held_out, write
        self._reader: WindowReader | None = None
        self._held_out: DocumentsInMemory | None = None
        self._rows = functools.lru_cache(maxsize=8)(self._make_rows)
        self._bytes_before = functools.lru_cache(maxsize=2)(self._make_bytes_before)

    @property
    def tokens_per_epoch(self) -> int:
        """Of the first epoch; 0 until that is over."""
        windows = self._index.windows
        end = bisect.bisect_left(windows, 1, key=lambda window: window.epoch)
        return sum(window.tokens for window in windows[:end]) if end < len(windows) else 0

    def pieces(self, ranks: Int64[np.ndarray, " n"], streams: StreamCache) -> Iterator[Piece]:
        """Where samples lie; see `Source`. Reads on if that is not known yet."""
        at = 0
        while at < len(ranks):
            while self._index.num_rows <= ranks[at]:
                self.stream(len(self._index.windows), streams)
            number = self._index.at_row(int(ranks[at]))
            stream = self.stream(number, streams)
            rows, first = self._rows(number), self._index.first_row(number)
            end = int(np.searchsorted(ranks, first + len(rows)))
            yield Piece(stream, np.arange(at, end), rows[ranks[at:end] - first])
            at = end

    def epochs(self, rank: int) -> float | None:
        """Passes that the first `rank` samples make up, by the sizes of the files behind them."""
        if rank > self._index.num_rows or not self._index.windows:
            return None
        number = self._index.at_row(rank)
        window, first = self._index.windows[number], self._index.first_row(number)
        before = self._bytes_before(window.epoch)
        begin = window.epoch + before[window.turn] / max(before[-1], 1)
        if number + 1 == len(self._index.windows):  # where it ends is not known
            return begin
        after = self._index.windows[number + 1]
        before = self._bytes_before(after.epoch)
        end = after.epoch + before[after.turn] / max(before[-1], 1)
        return begin + (end - begin) * (rank - first) / (self._index.first_row(number + 1) - first)

    def stream(self, number: int, streams: StreamCache) -> Stream:
        """A window's documents in their order."""
        return streams.get((self.name, number), lambda: self._make_stream(number))

    def held_out(self, streams: StreamCache) -> DocumentsInMemory:
        """Held-out documents that lie between those of the first window."""
        if self._held_out is None and self._held_out_path.is_file():
            self._held_out = self._read_held_out()
        if self._held_out is None:
            self.stream(0, streams)
        if self._held_out is None:  # the window was there already, from before the file was lost
            self._make_stream(0)
        assert self._held_out is not None
        return self._held_out

    def left_out(self) -> Sequence[str]:
        """What was left out of the raw files since this process began."""
        return self._raw.left_out()

    def close(self) -> None:
        """Stops reading ahead."""
        self._close_reader()
        self._raw.close()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _make_stream(self, number: int) -> Stream:
        filled = self._take(number)
        if number == 0:
            self._held_out = filled.held_out
            if self._write and not self._held_out_path.is_file():
                self._write_held_out(filled.held_out)
        if number == len(self._index.windows):
            self._index.add(filled.window)
        elif filled.window != (before := self._index.windows[number]):
            raise ValueError(
                f"stream.sources.{self.name}: window {number} began in {before.file} with "
                f"{before.documents} documents of {before.tokens} tokens; now it begins in "
                f"{filled.window.file} and has {filled.window.documents} of "
                f"{filled.window.tokens}: the raw files or what reads them changed since. Put them "
                "back, or begin another run."
            )
        key = (self._seed, self.name, "documents", filled.window.epoch, number)
        order = permutation(filled.window.documents, *key)
        first = self._index.first_document(number)
        stream = Stream(filled.documents, order, self._seq_len, first)
        stream.num_bytes += filled.documents.num_bytes
        return stream

    def _take(self, number: int) -> Filled:
        """Reads a window, and has the thread go on with the next."""
        reader = self._reader
        if reader is None or not reader.next <= number <= reader.next + _SKIPPED_AT_MOST:
            self._close_reader()
            windows = self._index.windows
            if number < len(windows):
                first, place = number, windows[number].place
            else:  # after the last that is known
                first, place = max(len(windows) - 1, 0), windows[-1].place if windows else Place()
            reader = self._reader = WindowReader(
                self._raw,
                self._tokenizer,
                seed=self._seed,
                first=first,
                place=place,
                num_threads=self._num_threads,
            )
        while reader.next < number:
            reader.take()
        return reader.take()

    def _make_rows(self, number: int) -> Int64[np.ndarray, " rows"]:
        window = self._index.windows[number]
        size = int(count_rows(np.array([window.tokens]), self._seq_len)[0])
        return permutation(size, self._seed, self.name, "rows", window.epoch, number)

    def _make_bytes_before(self, epoch: int) -> list[int]:
        order = file_order(self._raw, self._seed, epoch)
        return list(itertools.accumulate((self._raw.sizes[i] for i in order), initial=0))

    def _write_held_out(self, documents: DocumentsInMemory) -> None:
        partial = self._held_out_path.with_name(f"{self._held_out_path.name}.partial")
        tokens = [each for _, each in documents.read_tokens(range(len(documents.num_tokens_of)))]
        with partial.open("wb") as file:
            np.savez(
                file,
                tokens=np.concatenate([*tokens, np.zeros(0, documents.dtype)]),
                num_tokens=documents.num_tokens_of,
                text_bytes=documents.text_bytes_of,
            )
        partial.replace(self._held_out_path)

    def _read_held_out(self) -> DocumentsInMemory:
        with np.load(self._held_out_path) as kept:
            ends = np.cumsum(kept["num_tokens"].astype(np.int64))
            return DocumentsInMemory(
                self.name,
                np.split(kept["tokens"], ends[:-1]) if len(ends) else [],
                kept["text_bytes"].tolist(),
                [],
                token_dtype(self._tokenizer.vocab_size),
            )


class StreamedDataset(Dataset):
    """Batches from raw documents. Made by `open_stream`."""

    def held_out(self, source: str) -> DocumentsInMemory:
        """Documents of a source to score, which training never sees; maybe none."""
        return self._streamed(source).held_out(self._streams)

    def left_out(self) -> dict[str, Sequence[str]]:
        """What was left out of each source since this process began, for people."""
        return {name: self._streamed(name).left_out() for name in self.sources}

    def close(self) -> None:
        """Stops reading ahead."""
        for name in self.sources:
            self._streamed(name).close()

    def _streamed(self, name: str) -> StreamedSource:
        source = self._sources[self.sources.index(name)]
        assert isinstance(source, StreamedSource)
        return source


def open_stream(
    config: DataConfig,
    stream: BuildConfig,
    raw: Sequence[RawSource],
    tokenizer: Tokenizer,
    *,
    vocab_size: int,
    batch_size: int,
    folder: Path,
    write: bool,
    rows: range | None = None,
    num_threads: int = 1,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> StreamedDataset:
    """Opens the raw documents of a mixture; reads none of them yet.

    Args:
        config: Mixture, row length and seed.
        stream: The data recipe.
        raw: Its sources.
        tokenizer: Of the run.
        vocab_size: Of the model; every token must be below it.
        batch_size: Rows of a step, over all processes.
        folder: Keeps where windows begin, and what the raw files were.
        write: Whether to write there; among the processes of a run, the first alone does.
        rows: Which rows of each step this process takes; all of them by default.
        num_threads: Of the tokenizer.
        cache_bytes: Bound on the tokens that are kept.

    Raises:
        ValueError: If raw files or the tokenizer are not what they were when the run began, the
            tokenizer has ids outside the vocabulary, or the mixture names an unknown source.
    """
    check_vocabulary(vocab_size, tokenizer.vocab_size, f"tokenizer {tokenizer.path}")
    known = {source.name: source for source in raw}
    mixture = (
        config.mixture or stream.mixture or tuple((s.name, float(sum(s.sizes) or 1)) for s in raw)
    )
    check_mixture(mixture, known, "the stream")
    if write:
        folder.mkdir(parents=True, exist_ok=True)
    sources = [
        _open_source(known[name], tokenizer, config, folder, write, num_threads)
        for name, _ in mixture
    ]
    return StreamedDataset(
        sources,
        Mixture(tuple(weight for _, weight in mixture), config.shuffle_seed),
        identity=Identity(tokenizer=tokenizer.sha256, sources={}),
        seq_len=config.seq_len,
        vocab_size=vocab_size,
        rows=range(batch_size) if rows is None else rows,
        batch_size=batch_size,
        cache_bytes=cache_bytes,
    )


def _open_source(
    raw: RawSource,
    tokenizer: Tokenizer,
    config: DataConfig,
    folder: Path,
    write: bool,
    num_threads: int,
) -> StreamedSource:
    note, windows, held_out = (
        folder / f"{raw.name}.{suffix}" for suffix in ("json", "windows.jsonl", "heldout.npz")
    )
    if write and not note.is_file():  # of what files the rest was, nobody knows any more
        windows.unlink(missing_ok=True)
        held_out.unlink(missing_ok=True)
    made_from = {"the tokenizer": tokenizer.sha256, **raw.fingerprints()}
    adopt_files(note, made_from, f"stream.sources.{raw.name}", write=write)
    return StreamedSource(
        raw,
        tokenizer,
        WindowIndex(config.seq_len, windows, write=write),
        seq_len=config.seq_len,
        seed=config.shuffle_seed,
        held_out=held_out,
        write=write,
        num_threads=num_threads,
    )
