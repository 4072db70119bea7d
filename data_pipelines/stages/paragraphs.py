"""Paragraphs that repeat an earlier one of the corpus are removed, as CCNet does.

A paragraph is a line. Lines are compared by a hash of what is left of them without case, accents,
punctuation and the values of digits; lines of which nothing is left stay. The first occurrence, in
the order of documents' digests, stays too.

Each bucket's lines are hashed in a task of its own, and each part of the range of hashes is
sorted on disk in another, within fixed memory.

Source: Wenzek et al. 2019 (arXiv:1911.00359), section 3.1. There, lines are compared within groups
of shards; here, in all of a corpus.
"""

import functools
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from llama_jax.config import ParagraphDedup

from ..document import Dropped
from ..tables import Hashed
from .spill import Database, Resources, RowWriter, read_rows, write_by_file, write_rows

_HASHES = pa.schema([("hashes", pa.list_(pa.uint64()))])
_FOUND = pa.schema([(name, pa.int64()) for name in ("file", "row", "line")])
_REPEATS = pa.schema([("row", pa.int64()), ("line", pa.int64())])
_BATCH_LINES = 1 << 14


def hash_paragraphs(documents: Iterable[Hashed], out: Path) -> None:
    """Writes the hashes of each document's lines; 0 for one with nothing to compare.

    Args:
        documents: Of a bucket, in order of digest, without those that do not stay.
        out: Where hashes are written.
    """
    with RowWriter(out, _HASHES) as writer:
        hashes: list[bytes] = []
        ends = [0]
        for _, document in documents:
            hashes += map(_hash, normalise(document.text).split(b"\n"))
            ends.append(len(hashes))
            if len(hashes) >= _BATCH_LINES:
                writer.write(_to_table(ends, hashes))
                hashes, ends = [], [0]
        writer.write(_to_table(ends, hashes))


def _to_table(ends: list[int], hashes: list[bytes]) -> pa.Table:
    values = pa.array(np.frombuffer(b"".join(hashes), "<u8"))
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
    return pa.table([lists], schema=_HASHES)


def _hash(line: bytes) -> bytes:
    line = line.strip()
    return hashlib.sha1(line, usedforsecurity=False).digest()[:8] if line else bytes(8)


_ASCII_MARKS = bytes(code for code in range(128) if unicodedata.category(chr(code)).startswith("P"))
_ASCII = bytes.maketrans(
    bytes(range(ord("A"), ord("Z") + 1)) + b"123456789",
    bytes(range(ord("a"), ord("z") + 1)) + b"0" * 9,
)


def normalise(text: str) -> bytes:
    """What is compared of a text, with its line breaks, as UTF-8."""
    if text.isascii():
        return text.encode().translate(_ASCII, _ASCII_MARKS)
    apart = unicodedata.normalize("NFD", text.lower())
    units = _becomes()[np.frombuffer(apart.encode("utf-16-le", "surrogatepass"), "<u2")]
    return units[units > 0].tobytes().decode("utf-16-le", "replace").encode()


@functools.cache
def _becomes() -> np.ndarray:
    """What each UTF-16 unit becomes; 0 is removed. Beyond 65,536 characters stay as they are."""
    becomes = np.arange(1 << 16, dtype=np.uint16)
    for code in range(1 << 16):
        category = unicodedata.category(chr(code))
        if category == "Nd":
            becomes[code] = ord("0")
        elif category == "Mn" or category.startswith("P"):
            becomes[code] = 0
    return becomes


def find_repeats(
    hashes: Sequence[Path], part: int, num_parts: int, out: Path, resources: Resources
) -> None:
    """Writes which lines repeat an earlier one, of those whose hashes fall into a part.

    Args:
        hashes: What `hash_paragraphs` wrote, of all buckets in order.
        part: Below `num_parts`.
        num_parts: Parts of the range of hashes.
        out: Where lines are written.
        resources: What may be used.
    """
    query = """
    SELECT hash, file, row, line FROM (
      SELECT file_index AS file, file_row_number AS row, unnest(hashes) AS hash,
        generate_subscripts(hashes, 1) - 1 AS line
      FROM read_parquet($hashes)
    ) WHERE hash <> 0 AND hash % $num_parts = $part ORDER BY hash, file, row, line
    """
    with Database(resources) as database:
        rows = database.rows(query, hashes=hashes, part=part, num_parts=num_parts)
        write_rows(out, _FOUND, _repeats(rows))


def _repeats(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    previous = 0
    for batch in batches:
        values = batch.column("hash").to_numpy()
        is_repeat = values == np.concatenate(([previous], values[:-1]))
        previous = values[-1]
        yield batch.filter(pa.array(is_repeat))


def sort_repeats(found: Sequence[Path], repeats: Sequence[Path], resources: Resources) -> None:
    """Writes, for each bucket, its lines that go: `row` of the document and `line`, in order.

    Args:
        found: What `find_repeats` wrote, of all parts.
        repeats: Where each bucket's lines are written.
        resources: What may be used.
    """
    query = "SELECT file, row, line FROM read_parquet($found) ORDER BY file, row, line"
    with Database(resources) as database:
        write_by_file(repeats, _REPEATS, database.rows(query, found=found))


def remove_repeats(
    documents: Iterable[Hashed], repeats: Path, config: ParagraphDedup, dropped: Dropped
) -> Iterator[Hashed]:
    """A bucket's documents without the lines that repeat earlier ones.

    Documents of which too little is left are recorded in `dropped`. A document keeps the digest of
    its whole text, and so its place.

    Args:
        documents: The same as were given to `hash_paragraphs`.
        repeats: What `sort_repeats` wrote for the bucket.
        config: How much must be left.
        dropped: Counts documents, and notes the number of lines removed.
    """
    groups = itertools.groupby(_rows(repeats), key=lambda found: found[0])
    next_row, found = next(groups, (-1, iter(())))
    for row, hashed in enumerate(documents):
        if row != next_row:
            yield hashed
            continue
        gone = {line for _, line in found}
        next_row, found = next(groups, (-1, iter(())))
        dropped.note("paragraphs", "repeated", len(gone))
        lines = hashed.document.text.split("\n")
        text = "\n".join(line for at, line in enumerate(lines) if at not in gone).strip()
        if len(text) < config.min_characters:
            dropped.add(
                "paragraphs: characters left",
                hashed.document.id,
                hashed.document.text,
                value=str(len(text)),
                allowed=f"at least {config.min_characters}",
            )
        else:
            yield Hashed(hashed.digest, hashed.document._replace(text=text))
    assert next_row < 0, f"{repeats} is of other documents"


def _rows(repeats: Path) -> Iterator[tuple[int, int]]:
    for batch in read_rows(repeats, _REPEATS.names):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
