"""Everything that a task leaves out, as rows: what, by which rule, and with what value."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet

from .document import Dropped, LeftOut

DROPPED = "dropped.parquet"
DROPPED_FOLDER = "dropped"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("allowed", pa.string(), nullable=False),
        pa.field("text_bytes", pa.int64(), nullable=False),
    ]
)
_ROWS = 1 << 14
# An id may be a path of thousands of characters.
_CHARACTERS = 4 << 20


@contextlib.contextmanager
def account(folder: Path) -> Iterator[Dropped]:
    """An account of what a task leaves out, all of which is written into its folder.

    There is no file where nothing was left out.
    """
    with _Rows(folder / DROPPED) as rows:
        yield Dropped(rows.add)


class _Rows:
    """Writes rows in their order; holds some of them."""

    def __init__(self, path: Path):
        self._path = path
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._held: list[LeftOut] = []
        self._characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._held:
            self._write()
        if self._writer is not None:
            self._writer.close()

    def add(self, left_out: LeftOut) -> None:
        self._held.append(left_out)
        self._characters += len(left_out.id) + len(left_out.value)
        if len(self._held) == _ROWS or self._characters >= _CHARACTERS:
            self._write()

    def _write(self) -> None:
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, _SCHEMA, compression="zstd")
        columns = zip(*self._held, strict=True)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._held, self._characters = [], 0
