"""Near duplicates of a corpus of any size: pairs by signature, groups of pairs, one that stays.

Signatures of all buckets are compared band by band, each band a task of its own; then one task
joins the pairs to groups. Both sort and join on disk, within fixed memory. Of a group the longest
document stays, and of those as long the first by digest: the same whoever did the work, in
whatever order.

Source: Leskovec, Rajaraman, Ullman 2014, "Mining of Massive Datasets", section 3.4 (bands);
Kiveris et al. 2014, "Connected Components in MapReduce and Beyond" (groups).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from llama_jax.config import MinHash

from ..document import Dropped
from ..tables import Hashed
from .minhash import band_column
from .spill import Database, Resources, read_rows, write_by_file, write_rows

# Each document is compared with the longest of those with its key, and with so many before it.
_NEIGHBOURS = 8

_PAIR = pa.schema([(name, pa.int64()) for name in ("a", "b", "a_length", "b_length")])
_REMOVED = pa.schema([("digest", pa.binary(32)), ("stays", pa.binary(32))])
_SIZES = pa.schema([("documents", pa.int64()), ("groups", pa.int64())])

# A document's number: its file in the upper half, its row in the lower; in order of digest.
_NUMBER = "file_index::BIGINT * 4294967296 + file_row_number"


def match(
    signatures: Sequence[Path], band: int, out: Path, config: MinHash, resources: Resources
) -> None:
    """Writes the pairs of documents that share a band's key and have alike signatures.

    Args:
        signatures: What `minhash.sign` wrote, of all buckets in order.
        band: Below `config.bands`.
        out: Where pairs are written.
        config: As it was for `minhash.sign`.
        resources: What may be used.
    """
    key = band_column(band)
    with Database(resources) as database:
        rows = database.rows(
            f"""
            WITH shared AS (
              SELECT {key} FROM read_parquet($signatures) GROUP BY {key} HAVING count(*) > 1
            )
            SELECT {key} AS key, {_NUMBER} AS number, length, bytes
            FROM read_parquet($signatures) SEMI JOIN shared USING ({key})
            ORDER BY key, length DESC, number
            """,  # noqa: S608 - names of columns, no input
            signatures=signatures,
        )
        write_rows(out, _PAIR, _pairs(rows, config))


def _pairs(batches: Iterable[pa.RecordBatch], config: MinHash) -> Iterator[pa.RecordBatch]:
    # In front of each batch stand the first row of the key that it starts with, and the last few.
    before = pa.table({})
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        rows = pa.concat_tables([before, rows]).combine_chunks() if len(before) else rows
        keys = rows.column("key").to_numpy()
        is_first = np.concatenate(([True], keys[1:] != keys[:-1]))
        first = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
        new = np.arange(len(before), len(keys))
        backs = np.arange(_NEIGHBOURS + 1)
        partners = np.where(backs, new[:, None] - backs, first[new][:, None])
        # The first of a key is a partner once, though it may be among the last few as well.
        pairs = np.where(backs, partners > first[new][:, None], partners < new[:, None])
        b, back = np.nonzero(pairs)
        yield _alike(rows, partners[b, back], new[b], config)
        last = np.arange(max(len(keys) - _NEIGHBOURS, 0), len(keys))
        before = rows.take(np.union1d(first[-1:], last))


def _alike(rows: pa.Table, a: np.ndarray, b: np.ndarray, config: MinHash) -> pa.RecordBatch:
    size = config.bands * config.rows
    column = rows.column("bytes").combine_chunks().cast(pa.binary(size))
    start, end = column.offset * size, (column.offset + len(column)) * size
    some_bytes = np.frombuffer(column.buffers()[1], np.uint8)[start:end].reshape(-1, size)
    equal = np.count_nonzero(some_bytes[a] == some_bytes[b], axis=1)
    # One in 256 bytes of unequal minima is equal.
    alike = equal >= (config.threshold + (1 - config.threshold) / 256) * size - 1e-9
    a, b = a[alike], b[alike]
    number, length = rows.column("number").to_numpy(), rows.column("length").to_numpy()
    columns = [number[a], number[b], length[a], length[b]]
    return pa.record_batch([pa.array(column) for column in columns], schema=_PAIR)


def cluster(
    signatures: Sequence[Path],
    pairs: Sequence[Path],
    removed: Sequence[Path],
    sizes: Path,
    resources: Resources,
) -> None:
    """Joins pairs to groups and writes, for each bucket, which of its documents do not stay.

    Args:
        signatures: What `minhash.sign` wrote, of all buckets in order.
        pairs: What `match` wrote, of all bands.
        removed: Where each bucket's removed documents are written: `digest`, in order, and
            `stays`, the digest of the one that stays in its place.
        sizes: Where the number of `groups` of so many `documents` is written.
        resources: What may be used.
    """
    with Database(resources) as database:
        _join_groups(database, pairs)
        write_rows(sizes, _SIZES, database.rows(_SIZES_OF_GROUPS))
        for statement in (_NAME_STAYING, _NAME_REMOVED):
            database.run(statement, signatures=signatures)
        write_by_file(removed, _REMOVED, database.rows(_REMOVED_ROWS))


def _join_groups(database: Database, pairs: Sequence[Path]) -> None:
    """Makes `removed`: number of each document that does not stay, and of the one that does."""
    database.run(
        """
        CREATE TABLE links AS SELECT DISTINCT greatest(a, b) AS high, least(a, b) AS low
        FROM read_parquet($pairs)
        """,
        pairs=pairs,
    )
    # Each round keeps groups together and brings them nearer to stars, which it does not change.
    before, after = (), database.row(_FINGERPRINT)
    while after != before:
        for step in (_LARGE_STAR, _SMALL_STAR):
            database.run(f"CREATE TABLE better AS {step}")
            database.run("DROP TABLE links")
            database.run("ALTER TABLE better RENAME TO links")
        before, after = after, database.row(_FINGERPRINT)
    database.run(_LENGTHS, pairs=pairs)
    database.run(_STAYING)


# The same before and after a round that changes nothing; needs no memory, unlike a look for
# documents with several links.
_FINGERPRINT = "SELECT count(*), bit_xor(hash(high, low)) FROM links"
# The links of each document to higher ones go to the lowest that it is linked to.
_LARGE_STAR = """
WITH ends AS (SELECT high AS a, low AS b FROM links UNION ALL SELECT low, high FROM links),
lowest AS (SELECT a, least(a, min(b)) AS low FROM ends GROUP BY a)
SELECT DISTINCT b AS high, low FROM ends JOIN lowest USING (a) WHERE b > a
"""
# The links of each document to lower ones, and its own, go to the lowest of them.
_SMALL_STAR = """
WITH lowest AS (SELECT high, min(low) AS low FROM links GROUP BY high)
SELECT high, low FROM lowest UNION
SELECT links.low AS high, lowest.low FROM links JOIN lowest USING (high)
WHERE links.low <> lowest.low
"""
_LENGTHS = """
CREATE TABLE lengths AS SELECT a AS number, any_value(a_length) AS length
FROM (SELECT a, a_length FROM read_parquet($pairs) UNION ALL
      SELECT b, b_length FROM read_parquet($pairs)) GROUP BY a
"""
_STAYING = """
CREATE TABLE removed AS
WITH members AS (
  SELECT high AS number, low AS name FROM links UNION ALL SELECT DISTINCT low, low FROM links
),
staying AS (
  SELECT name, min({'shortness': -length, 'number': number}).number AS stays
  FROM members JOIN lengths USING (number) GROUP BY name
)
SELECT number, stays FROM members JOIN staying USING (name) WHERE number <> stays
"""
_SIZES_OF_GROUPS = """
SELECT documents, count(*) AS groups
FROM (SELECT count(*) + 1 AS documents FROM removed GROUP BY stays)
GROUP BY documents ORDER BY documents
"""
_SIGNED = f"SELECT {_NUMBER} AS number, digest FROM read_parquet($signatures)"  # noqa: S608
# One join or sort a statement: those of one statement share the memory.
_NAME_STAYING = f"""
CREATE TABLE half_named AS SELECT removed.number AS number, digest AS stays
FROM removed JOIN ({_SIGNED}) signed ON signed.number = removed.stays
"""  # noqa: S608 - an expression of ours
_NAME_REMOVED = f"""
CREATE TABLE named AS SELECT number, digest, stays FROM half_named JOIN ({_SIGNED}) USING (number)
"""  # noqa: S608 - an expression of ours
_REMOVED_ROWS = """
SELECT number // 4294967296 AS file, digest, stays FROM named ORDER BY number
"""


def remove(documents: Iterable[Hashed], removed: Path, dropped: Dropped) -> Iterator[Hashed]:
    """A bucket's documents that stay; the others are recorded in `dropped`.

    Args:
        documents: In order of digest.
        removed: What `cluster` wrote for the bucket.
        dropped: Counts them.
    """
    rows = _rows(removed)
    digest, stays = next(rows, (b"", b""))
    for hashed in documents:
        if hashed.digest == digest:
            document = hashed.document
            dropped.add("near duplicate", document.id, document.text, value=f"of {stays.hex()}")
            digest, stays = next(rows, (b"", b""))
        else:
            yield hashed


def _rows(removed: Path) -> Iterator[tuple[bytes, bytes]]:
    for batch in read_rows(removed, _REMOVED.names):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
