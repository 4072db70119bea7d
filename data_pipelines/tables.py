"""Documents as Parquet: what passes between stages, and what a build leaves for people to read."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet

from .document import Document

DOCUMENTS = "documents.parquet"
DOCUMENTS_FOLDER = "documents"
_ROWS = 512
_BATCH_BYTES = 4 << 20
SCHEMA = pa.schema(
    [
        pa.field("digest", pa.binary(32), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)


class Hashed(NamedTuple):
    """A document and the SHA-256 of its text."""

    digest: bytes
    document: Document

    def bucket(self, num_buckets: int) -> int:
        """Which of equal parts of the range of hashes it is in; parts are in their order."""
        return int.from_bytes(self.digest[:4]) * num_buckets >> 32

    def is_held_out(self, fraction: float) -> bool:
        """Whether it is among the share of texts, by hash, that training never sees."""
        return is_held_out(self.digest, fraction)


def is_held_out(digest: bytes, fraction: float) -> bool:
    """See `Hashed.is_held_out`."""
    # Other bytes than those that order documents: a cut of the order must keep both kinds.
    return int.from_bytes(digest[8:16]) < fraction * 2**64


def write_documents(path: Path, documents: Iterable[Hashed]) -> None:
    """Writes documents in the order given, in groups of a few megabytes."""
    with pyarrow.parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in to_batches(documents):
            writer.write_batch(batch)


def read_documents(
    path: Path, wanted: Callable[[bytes], bool] = lambda digest: True
) -> Iterator[Hashed]:
    """Documents in their order, of those digests that are wanted; memory holds one group."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group).to_batches():
                chosen = pa.array(map(wanted, batch.column("digest").to_pylist()), pa.bool_())
                yield from from_batch(batch.filter(chosen))


def to_batches(
    documents: Iterable[Hashed], batch_bytes: int = _BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Documents as columns, a few megabytes at a time."""
    held: list[Hashed] = []
    size = 0
    for hashed in documents:
        held.append(hashed)
        size += len(hashed.document.text)
        if len(held) == _ROWS or size >= batch_bytes:
            yield _to_batch(held)
            held, size = [], 0
    if held:
        yield _to_batch(held)


def _to_batch(documents: list[Hashed]) -> pa.RecordBatch:
    digests, rows = zip(*documents, strict=True)
    ids, texts, urls, languages, metadata = zip(*rows, strict=True)
    columns = (digests, ids, texts, urls, languages, [list(pairs) for pairs in metadata])
    arrays = [pa.array(c, field.type) for c, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def from_batch(batch: pa.RecordBatch) -> Iterator[Hashed]:
    """The documents of a batch of `to_batches`."""
    digests, *fields, metadata = (column.to_pylist() for column in batch.columns)
    for digest, *rest, pairs in zip(digests, *fields, metadata, strict=True):
        yield Hashed(digest, Document(*rest, metadata=tuple(map(tuple, pairs))))
