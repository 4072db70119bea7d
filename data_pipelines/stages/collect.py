"""Raw files to documents, filtered, and sorted by the hash of their text."""

import dataclasses
import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llama_jax.config import Source

from ..document import Document, DocumentSource, Dropped, RawFile, WatchedFile
from ..dropped_rows import account
from ..engine import Progress
from ..sources import open_source
from ..tables import SCHEMA, Hashed, from_batch, to_batches
from .filters import open_filters
from .sorted_runs import by_digest

_PIECES = "pieces.arrow"
_OFFSETS = "offsets.npy"
_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collect:
    """What one task reads.

    Attributes:
        source: Whose files they are, and what its documents pass.
        files: Of the source, side by side, or pieces of them.
        num_buckets: Into which the range of hashes is cut.
    """

    source: Source
    files: tuple[RawFile, ...]
    num_buckets: int


@dataclasses.dataclass(kw_only=True, slots=True)
class Passage:
    """What has come through a place: documents and UTF-8 bytes of their texts."""

    name: str
    documents: int = 0
    text_bytes: int = 0

    def count(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents, counted."""
        for document in documents:
            self.add(document)
            yield document

    def count_hashed(self, documents: Iterable[Hashed]) -> Iterator[Hashed]:
        """The same documents, counted."""
        for hashed in documents:
            self.add(hashed.document)
            yield hashed

    def add(self, document: Document) -> None:
        """Counts one."""
        self.documents += 1
        self.text_bytes += len(document.text.encode())


def collect(
    config: Collect, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Writes the documents of some files, bucket after bucket; tells what was left out."""
    passages = [Passage(name="read")]
    with account(folder) as dropped, tempfile.TemporaryDirectory(dir=folder) as scratch:
        documents = _read(open_source(config.source), config.files, dropped, progress)
        documents = passages[0].count(documents)
        for each in open_filters(config.source.filters):
            passages.append(Passage(name=type(each).__name__))
            documents = passages[-1].count(each.keep(documents, dropped))
        in_order = by_digest(map(_hashed, documents), Path(scratch))
        offsets = _write(in_order, folder / _PIECES, config.num_buckets)
    np.save(folder / _OFFSETS, np.array(offsets, np.int64))
    return {
        "num_buckets": config.num_buckets,
        # Pieces of a file are one.
        "files": sum(not file.start for file in config.files),
        "raw_bytes": sum(file.num_bytes for file in config.files),
        "passages": [dataclasses.asdict(passage) for passage in passages],
        "dropped": dropped.to_json(),
    }


def read_buckets(folder: Path, first: int, stop: int) -> Iterator[Hashed]:
    """Documents of some buckets that `collect` left in a folder, by digest; one is in memory.

    No file stays open between them: thousands of folders can be read side by side.
    """
    offsets = np.load(folder / _OFFSETS, mmap_mode="r")[first : stop + 1].tolist()
    for start, end in itertools.pairwise(offsets):
        if start < end:
            with (folder / _PIECES).open("rb") as file:
                file.seek(start)
                piece = file.read(end - start)
            with pa.ipc.open_stream(piece) as batches:
                for batch in batches:
                    yield from from_batch(batch)


def _read(
    source: DocumentSource,
    files: Iterable[RawFile],
    dropped: Dropped,
    progress: Progress,
) -> Iterator[Document]:
    for file in files:
        told = 0

        def tell(num_bytes: int) -> None:
            nonlocal told
            told += num_bytes
            progress(num_bytes)

        yield from source.read(WatchedFile.of(file, tell), dropped)
        tell(file.num_bytes - told)


def _hashed(document: Document) -> Hashed:
    return Hashed(hashlib.sha256(document.text.encode()).digest(), document)


def _write(documents: Iterable[Hashed], path: Path, num_buckets: int) -> list[int]:
    """Writes a stream of Arrow for each bucket; gives where each begins, and the end."""
    offsets = [0]
    with path.open("wb") as file:
        for bucket, group in itertools.groupby(documents, lambda h: h.bucket(num_buckets)):
            offsets += [file.tell()] * (bucket + 1 - len(offsets))
            with pa.ipc.new_stream(file, SCHEMA, options=_ZSTD) as writer:
                for batch in to_batches(group):
                    writer.write_batch(batch)
        offsets += [file.tell()] * (num_buckets + 1 - len(offsets))
    return offsets
