"""Queries over Parquet files of any size within fixed memory, and tables written from them.

Rows come in an order that the query fixes and are written in row groups of a fixed size, so that
files are the same bytes whatever the memory and the number of threads.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

_GROUP_ROWS = 1 << 14
# Smaller: what is computed of them may be hundreds of times as large.
_READ_ROWS = 1 << 11


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one task of a stage may use.

    Attributes:
        scratch: Folder for what does not fit into memory; emptied afterwards.
        memory_bytes: Of DuckDB.
        threads: Of DuckDB.
    """

    scratch: Path
    memory_bytes: int
    threads: int = 1


class Database:
    """A database in a temporary folder, which is removed with all that it spilled.

    Args:
        resources: Its limits.
    """

    def __init__(self, resources: Resources):
        import duckdb

        resources.scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=resources.scratch)
        self._connection = duckdb.connect(
            Path(self._folder.name) / "tables.duckdb",
            config={
                "memory_limit": f"{resources.memory_bytes}B",
                "threads": resources.threads,
                "temp_directory": str(Path(self._folder.name) / "spilled"),
                "preserve_insertion_order": False,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def run(self, query: str, **values: Sequence[Path] | int) -> None:
        """Runs a statement; `$name` in it stands for the paths or number given as `name`."""
        self._connection.execute(query, _plain(values))

    def rows(self, query: str, **values: Sequence[Path] | int) -> Iterator[pa.RecordBatch]:
        """Rows of a query, some at a time."""
        found = self._connection.sql(query, params=_plain(values))
        yield from found.to_arrow_reader(_READ_ROWS)

    def row(self, query: str) -> tuple[object, ...]:
        """The first row of a query."""
        return self._connection.execute(query).fetchone() or ()


def _plain(values: Mapping[str, Sequence[Path] | int]) -> dict[str, list[str] | int]:
    return {
        name: value if isinstance(value, int) else [str(path) for path in value]
        for name, value in values.items()
    }


def read_rows(
    path: Path, columns: Sequence[str], batch_rows: int = _READ_ROWS
) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet file in order; memory holds one row group."""
    with pq.ParquetFile(path) as file:
        # Not iter_batches, which keeps what it has read of the file.
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
            yield from table.to_batches(batch_rows)


class RowWriter:
    """A Parquet file with row groups of a fixed size, however rows come.

    Args:
        path: Of the file.
        schema: Of its rows.

    Attributes:
        schema: Of its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush(1)
        self._writer.close()

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Adds rows, with the schema's columns in any order."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        self._waiting.append(table.select(self.schema.names).cast(self.schema))
        self._num_waiting += len(table)
        self._flush(_GROUP_ROWS)

    def _flush(self, least: int) -> None:
        if self._num_waiting < least:
            return
        table, at = pa.concat_tables(self._waiting).combine_chunks(), 0
        while len(table) - at >= least:
            self._writer.write_table(table.slice(at, _GROUP_ROWS))
            at += _GROUP_ROWS
        self._waiting = [table.slice(at)]
        self._num_waiting = max(len(table) - at, 0)


def write_rows(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]) -> None:
    """Writes batches of rows as one file."""
    with RowWriter(path, schema) as writer:
        for batch in batches:
            writer.write(batch)


def write_by_file(
    paths: Sequence[Path], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> None:
    """Writes a file for each path from rows ordered by their column `file`, a path's index."""
    tables = _runs(batches)
    file, rows = next(tables, (len(paths), None))
    for index, path in enumerate(paths):
        with RowWriter(path, schema) as writer:
            while file == index and rows is not None:
                writer.write(rows)
                file, rows = next(tables, (len(paths), None))


def _runs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    for batch in batches:
        files = batch.column("file").to_numpy()
        start = 0
        while start < len(files):
            end = int(files.searchsorted(files[start], side="right"))
            yield int(files[start]), pa.Table.from_batches([batch.slice(start, end - start)])
            start = end
