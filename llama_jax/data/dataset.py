"""What every step sees, decided by one global sample counter."""

import copy
import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from llama_jax.checksum import file_sha256
from llama_jax.config import DataConfig
from llama_jax.data.batch import Batch
from llama_jax.data.documents import are_within, refuse_outside
from llama_jax.data.identity import Identity, identify
from llama_jax.data.order import Mixture
from llama_jax.data.packing import pack_rows
from llama_jax.data.shards import (
    Manifest,
    SplitReader,
    built_mixture,
    list_sources,
    read_manifest,
)
from llama_jax.data.streams import Piece, ShardSource, Source, StreamCache
from llama_jax.data.tokenizer import find_tokenizer

DEFAULT_CACHE_BYTES = 512 << 20


class Document(NamedTuple):
    """A document that a sample came from.

    Attributes:
        source: Name of its source.
        number: Of the document in the order of the shards.
        id: Under which it was collected.
    """

    source: str
    number: int
    id: str


def open_dataset(
    config: DataConfig,
    *,
    vocab_size: int,
    batch_size: int,
    rows: range | None = None,
    split: str = "train",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> "Dataset":
    """Opens the shards of a mixture; reads manifests and no tokens.

    Args:
        config: Directory, mixture, row length and seed.
        vocab_size: Of the model; every token must be below it.
        batch_size: Rows of a step, over all processes.
        rows: Which rows of each step this process reads; all of them by default.
        split: "train" or "heldout".
        cache_bytes: Bound on decoded tokens that are kept.

    Raises:
        ValueError: If shards are missing, cut short, of another tokenizer or outside the
            vocabulary, or the mixture names an unknown source.
    """
    manifests = open_manifests(config.directory, vocab_size=vocab_size)
    by_tokens = tuple(
        (name, float(manifest.splits[split].num_tokens)) for name, manifest in manifests.items()
    )
    mixture = config.mixture or built_mixture(config.directory) or by_tokens
    check_mixture(mixture, manifests, config.directory)
    for name, _ in mixture:
        if not manifests[name].splits[split].num_documents:
            raise ValueError(
                f"data.mixture: source {name!r} of {config.directory} has no {split} documents; "
                "leave it out, or build it from more text."
            )
    sources = [
        ShardSource(
            SplitReader(Path(config.directory) / name, manifests[name], split),
            config.seq_len,
            config.shuffle_seed,
        )
        for name, _ in mixture
    ]
    dealt = Mixture(tuple(weight for _, weight in mixture), config.shuffle_seed)
    names = (name for name, _ in mixture)
    return Dataset(
        sources,
        dealt,
        identity=identify(manifests, dict(zip(names, dealt.weights, strict=True))),
        seq_len=config.seq_len,
        vocab_size=vocab_size,
        rows=range(batch_size) if rows is None else rows,
        batch_size=batch_size,
        cache_bytes=cache_bytes,
    )


def open_manifests(directory: str, *, vocab_size: int) -> dict[str, Manifest]:
    """Manifests of a directory's sources, each checked against its tokenizer and the model.

    Raises:
        ValueError: As `open_dataset`.
    """
    names = list_sources(directory)
    tokenizer = find_tokenizer(directory)
    sha256 = file_sha256(tokenizer)
    manifests = {name: read_manifest(Path(directory) / name) for name in names}
    for name, manifest in manifests.items():
        if manifest.tokenizer_sha256 != sha256:
            raise ValueError(
                f"data: the shards of {name!r} in {directory} were made with the tokenizer "
                f"{manifest.tokenizer_sha256[:12]}, but {tokenizer.name} is {sha256[:12]}; "
                "build the source again with this tokenizer."
            )
        check_vocabulary(vocab_size, manifest.vocab_size, f"tokenizer in {directory}")
    return manifests


def check_vocabulary(vocab_size: int, needed: int, tokenizer: str) -> None:
    """Raises ValueError if a tokenizer has ids outside the model's vocabulary."""
    if needed > vocab_size:
        raise ValueError(
            f"model.vocab_size={vocab_size} is below the {needed} ids of the {tokenizer}; make it "
            f"{needed} or more."
        )


def check_mixture(mixture: Iterable[tuple[str, float]], known: Collection[str], where: str) -> None:
    """Raises ValueError if a mixture names a source that is not there."""
    for name, _ in mixture:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            there = ", ".join(sorted(known))
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {there}."
            raise ValueError(f"data.mixture names {name!r}, which is no source of {where}. {hint}")


class Dataset:
    """Batches by sample counter. Made by `open_dataset`; safe to share between threads.

    Attributes:
        sources: Names, in the order of the mixture.
        weights: Share of samples that each source has, as dealt.
        identity: What tells it from others.
        batch_size: Rows of a step, over all processes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        mixture: Mixture,
        *,
        identity: Identity,
        seq_len: int,
        vocab_size: int,
        rows: range,
        batch_size: int,
        cache_bytes: int,
    ):
        self._sources, self._mixture = sources, mixture
        self._seq_len, self._vocab_size = seq_len, vocab_size
        self._rows = np.asarray(rows, np.int64)
        self._streams = StreamCache(cache_bytes)
        self.batch_size = batch_size
        self.sources = tuple(source.name for source in sources)
        self.weights, self.identity = mixture.weights, identity

    @property
    def tokens_per_epoch(self) -> dict[str, int]:
        """Of each source; 0 while that is not known."""
        return {source.name: source.tokens_per_epoch for source in self._sources}

    def resized(self, batch_size: int, rows: range) -> "Dataset":
        """The same samples in batches of another size; shares what has been read.

        Args:
            batch_size: Rows of a step, over all processes.
            rows: Which of them this process reads.
        """
        other = copy.copy(self)
        other.batch_size, other._rows = batch_size, np.asarray(rows, np.int64)
        return other

    def batch(self, first_sample: int) -> Batch:
        """This process's rows of the step that begins at a sample.

        Raises:
            ValueError: If a shard does not hold what its index says, or a token is outside the
                vocabulary.
        """
        samples = first_sample + self._rows
        parts: list[tuple[Int64[np.ndarray, " _"], Batch]] = []
        for _, (stream, where, rows) in self._pieces(samples):
            stream.load(rows, self._seq_len)
            packed = pack_rows(stream.tokens, stream.starts, stream.num_tokens, rows, self._seq_len)
            parts.append((where, packed))
        batch = _merge(parts, len(samples), self._seq_len)
        if not are_within(self._vocab_size, batch):
            ids = np.concatenate([np.asarray(batch.inputs), np.asarray(batch.targets)], axis=1)
            outside = ((ids < 0) | (ids >= self._vocab_size)).any(axis=1)
            for _, (stream, _, (row,)) in self._pieces(samples[outside][:1]):
                documents = stream.documents(int(row), self._seq_len).tolist()
                refuse_outside(stream.reader, documents, self._vocab_size)
        return batch

    def batches(self, first_sample: int, *, num_threads: int = 2, prefetch: int = 4) -> "Batches":
        """Batches from a sample on, without end, read ahead by threads."""
        return Batches(self, first_sample, num_threads=num_threads, prefetch=prefetch)

    def documents_of(self, first_sample: int, num_samples: int) -> list[Document]:
        """The documents in samples of the global order, each once, in order of appearance."""
        samples = first_sample + np.arange(num_samples)
        found: dict[tuple[int, int], tuple[str, int]] = {}
        read: dict[tuple[str, int], Document] = {}
        for source, (stream, where, rows) in self._pieces(samples):
            for sample, row in zip(where.tolist(), rows.tolist(), strict=True):
                for nth, index in enumerate(stream.documents(row, self._seq_len).tolist()):
                    number = stream.first_number + index
                    found[sample, nth] = key = (source.name, number)
                    if key not in read:
                        read[key] = Document(source.name, number, stream.document_id(index))
        return [read[key] for key in dict.fromkeys(found[place] for place in sorted(found))]

    def epochs(self, samples: int) -> dict[str, float]:
        """Passes over each source that the first `samples` samples make up, where it is known."""
        drawn = self._mixture.drawn(samples).tolist()
        pairs = zip(self._sources, drawn, strict=True)
        known = {source.name: source.epochs(count) for source, count in pairs}
        return {name: epochs for name, epochs in known.items() if epochs is not None}

    def _pieces(self, samples: Int64[np.ndarray, " n"]) -> Iterator[tuple[Source, Piece]]:
        """Samples grouped by stream, with indices of samples."""
        source_of, ranks = self._mixture.locate(samples)
        for i in np.unique(source_of):
            where = np.flatnonzero(source_of == i)
            for piece in self._sources[i].pieces(ranks[where], self._streams):
                yield self._sources[i], piece._replace(where=where[piece.where])


class Batches:
    """An iterator of batches without end, read ahead by Grain's threads.

    Attributes:
        next_sample: The global sample counter: where the next batch begins.
    """

    def __init__(self, dataset: Dataset, first_sample: int, *, num_threads: int, prefetch: int):
        import grain

        self._dataset = dataset
        self.next_sample = first_sample
        steps: Any = grain.MapDataset.source(_Steps(dataset, first_sample))
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
        self._iterator = iter(steps.to_iter_dataset(options))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self.next_sample += self._dataset.batch_size
        return batch

    def close(self) -> None:
        """Stops reading ahead."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()


class _Steps:
    """Batches by step, for Grain."""

    def __init__(self, dataset: Dataset, first_sample: int):
        self._dataset, self._first_sample = dataset, first_sample

    def __len__(self) -> int:
        return (2**62 - self._first_sample) // self._dataset.batch_size

    def __getitem__(self, index: int) -> Batch:
        return self._dataset.batch(self._first_sample + int(index) * self._dataset.batch_size)


def _merge(
    parts: list[tuple[Int64[np.ndarray, " _"], Batch]], num_rows: int, seq_len: int
) -> Batch:
    """Puts rows back in the order of their samples."""
    if len(parts) == 1:
        return parts[0][1]
    arrays = [np.empty((num_rows, seq_len), field.dtype) for field in parts[0][1]]
    for where, part in parts:
        for array, field in zip(arrays, part, strict=True):
            array[where] = field
    return Batch(*arrays)
