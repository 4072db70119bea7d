"""Records of JSON lines and Parquet files, one after the other, in bounded memory."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..document import Dropped, RawFile
from .folder import open_decompressed

if TYPE_CHECKING:
    import pyarrow

RECORD_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet")
# Parsed JSON takes up to some 25 times its bytes.
MAX_RECORD_BYTES = 16 << 20
_MAX_VALUE_CHARACTERS = 4096
_ROWS = 256
_BATCH_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
# Lines of larger plain files are known by their bytes, so that pieces of them can be read.
_LARGE_BYTES = 64 << 20
# Zstandard can unpack 4 bytes to 128 KiB, and gives all that a piece holds at once.
_PIECE_BYTES = 512


class Record(NamedTuple):
    """A record with text.

    Attributes:
        id: Its file and its line or row, from 1: "a/b.jsonl:17". In plain JSON lines of more than
            64 MiB the byte at which its line begins: "a/b.jsonl:@73400320".
        text: Its text, not blank and without lone surrogates.
        values: What else it was asked for and has, by the field's name.
    """

    id: str
    text: str
    values: dict[str, object]


def can_cut(file: RawFile) -> bool:
    """Whether pieces of a file can be read; see `Divisible`."""
    name = file.name.lower()
    return name.endswith(".parquet") or (name.endswith(".jsonl") and file.size_bytes > _LARGE_BYTES)


def read_records(
    file: RawFile, text_fields: Sequence[str], fields: Sequence[str], dropped: Dropped
) -> Iterator[Record]:
    """Records with text, in order; others and what is damaged are recorded in `dropped`.

    Args:
        file: One of `RECORD_SUFFIXES`, or a piece of it.
        text_fields: The text is in the first of these that a record has. Names of nested fields
            have dots: "meta.url".
        fields: What else is wanted.
        dropped: Is told what is left out.
    """
    wanted = (*text_fields, *fields)
    try:
        is_table = file.name.lower().endswith(".parquet")
        for record, values in (_parquet if is_table else _json_lines)(file, wanted, dropped):
            name = next((name for name in text_fields if name in values), None)
            if name is None:
                names = " or ".join(map(repr, text_fields))
                if is_table:
                    # All rows of a table have the same columns; its first piece has rows.
                    if not file.start:
                        dropped.add(f"no column {names}", file.name)
                    return
                dropped.add(f"no field {names}", record)
            elif (text := checked_text(values[name], name, record, dropped)) is not None:
                yield Record(record, text, values)
    except damage() as error:
        dropped.add_bad(
            f"file damaged, the rest of it is lost ({type(error).__name__})", file.label
        )


def checked_text(value: object, name: str, record: str, dropped: Dropped) -> str | None:
    """The value, if it is text that can be used; otherwise None, with the reason recorded."""
    if not isinstance(value, str):
        return dropped.add(f"{name!r} is no text", record)
    if len(value) > MAX_RECORD_BYTES:
        return dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", record)
    if not value.strip():
        return dropped.add("no text", record)
    try:
        value.encode()
    except UnicodeEncodeError:
        return dropped.add_bad("lone surrogates", record)
    return value


def short_text(value: object) -> str:
    """A value as text for people: lists with commas, nothing for None, long ones cut."""
    values = value[:_MAX_VALUE_CHARACTERS] if isinstance(value, list) else [value]
    text = ", ".join(_plain(each)[:_MAX_VALUE_CHARACTERS] for each in values)
    return text[:_MAX_VALUE_CHARACTERS].encode(errors="replace").decode()


def _plain(value: object) -> str:
    if isinstance(value, dict | list):
        try:
            return json.dumps(value, default=str)
        except (ValueError, RecursionError):
            return ""
    return "" if value is None else str(value)


def damage() -> tuple[type[Exception], ...]:
    """What decoders raise at damaged files; `OSError` as well, as Arrow's and gzip's do."""
    import zlib

    import pyarrow
    import zstandard

    return OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException


def _value(record: dict[str, Any], name: str) -> tuple[bool, object]:
    """Whether the record has a field, and its value."""
    if name in record:
        return True, record[name]
    value: Any = record
    for key in name.split("."):
        if value is None:
            return True, None
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _values(record: dict[str, Any], names: Sequence[str]) -> dict[str, object]:
    found = ((name, *_value(record, name)) for name in names)
    return {name: value for name, has_it, value in found if has_it}


def _json_lines(
    file: RawFile, fields: Sequence[str], dropped: Dropped
) -> Iterator[tuple[str, dict[str, object]]]:
    for place, line in _lines(file):
        record = f"{file.name}:{place}"
        if line is None:
            dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", record)
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            dropped.add_bad("no valid JSON", record)
            continue
        yield record, _values(value if isinstance(value, dict) else {}, fields)


def _lines(file: RawFile) -> Iterator[tuple[object, bytes | None]]:
    """Lines of a file with their numbers, or bytes; None for one that is too long."""
    if Path(file.name).suffix.lower() == ".zst":
        with file.open() as packed:
            yield from enumerate(
                _capped_lines(io.BufferedReader(_Unpacked(packed), _BUFFER_BYTES)), 1
            )
    elif file.stop or can_cut(file):
        with file.open() as lines:
            yield from _lines_by_byte(lines, file.start, file.stop or file.size_bytes)
    else:
        with open_decompressed(file) as lines:
            yield from enumerate(_capped_lines(lines), 1)


def _lines_by_byte(lines: BinaryIO, start: int, stop: int) -> Iterator[tuple[str, bytes | None]]:
    """Lines that begin in a range of bytes."""
    if start:
        # To the end of the line that is before this byte, or that it is in.
        lines.seek(start - 1)
        next(_capped_lines(lines), None)
    place = lines.tell()
    while place < stop and (line := next(_capped_lines(lines), b"")) != b"":
        yield f"@{place}", line
        place = lines.tell()


def _capped_lines(lines: Any) -> Iterator[bytes | None]:
    while line := lines.readline(MAX_RECORD_BYTES):
        if len(line) < MAX_RECORD_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := lines.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


class _Unpacked(io.RawIOBase):
    """The contents of every frame; the library's own reader takes a cut file for a whole one."""

    def __init__(self, packed: BinaryIO):
        import zstandard

        # Published dumps are compressed with windows of up to 2 GiB.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._packed, self._frame = packed, None
        self._piece = self._unpacked = b""
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._given == len(self._unpacked):
            self._piece = self._piece or self._packed.read(_PIECE_BYTES)
            if not self._piece:
                if self._frame is not None:
                    raise EOFError("the last frame is cut short")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._unpacked, self._given = self._frame.decompress(self._piece), 0
            self._piece = b""
            if self._frame.eof:
                self._piece, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._unpacked) - self._given)
        buffer[:size] = self._unpacked[self._given : self._given + size]
        self._given += size
        return size


def _parquet(
    file: RawFile, fields: Sequence[str], dropped: Dropped
) -> Iterator[tuple[str, dict[str, object]]]:
    import pyarrow.parquet

    with file.open() as opened:
        try:
            metadata = pyarrow.parquet.read_metadata(opened)
        except damage():
            if file.start:
                return  # The first piece tells of it.
            raise
        columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
        wanted = {
            index: column.path
            for index, column in enumerate(columns)
            if any(column.path == name or column.path.startswith(f"{name}.") for name in fields)
        }
        options: dict[str, Any] = {
            "metadata": metadata,
            # Else whole columns of a row group are read at once.
            "buffer_size": _BUFFER_BYTES,
            "pre_buffer": False,
            "page_checksum_verification": True,
        }
        with (
            pyarrow.parquet.ParquetFile(opened, **options) as table,
            pyarrow.parquet.ParquetFile(
                opened, **options, read_dictionary=list(wanted.values())
            ) as as_dictionaries,
        ):
            number = 0
            for group in range(metadata.num_row_groups):
                if not _begins_in(file, metadata.row_group(group)):
                    number += metadata.row_group(group).num_rows
                    continue
                only: dict[str, Any] = {"row_groups": [group], "columns": list(wanted.values())}
                first = next(as_dictionaries.iter_batches(batch_size=1, **only), None)
                rows = _batch_rows(metadata.row_group(group), wanted, first)
                for batch in table.iter_batches(batch_size=rows, **only):
                    for row in range(batch.num_rows):
                        number += 1
                        record = f"{file.name}:{number}"
                        if (values := _row(batch, row)) is None:
                            dropped.add_bad("not UTF-8", record)
                        else:
                            yield record, _values(values, fields)


def _begins_in(file: RawFile, group: Any) -> bool:
    """Whether a row group does so in a piece of a file, with all that a damaged file may say."""
    column = group.column(0) if group.num_columns else None
    offsets = (column.dictionary_page_offset, column.data_page_offset) if column else ()
    begin = min(filter(None, offsets), default=0)
    begin = min(max(begin, 0), file.size_bytes - 1)
    return file.start <= begin < (file.stop or file.size_bytes)


def _batch_rows(group: Any, columns: Iterable[int], first: "pyarrow.RecordBatch | None") -> int:
    """Rows read at once, so that they take about as much as a batch may.

    Args:
        group: Metadata of a row group.
        columns: Those that are read.
        first: A row of it, with dictionaries as they are stored. A long string of one can stand in
            every row, which sizes as they are stored do not tell.
    """
    import pyarrow.compute

    stored = sum(group.column(index).total_uncompressed_size for index in columns)
    dictionaries = (c.dictionary for c in first or () if pyarrow.types.is_dictionary(c.type))
    lengths = (pyarrow.compute.call_function("binary_length", [d]) for d in dictionaries)
    longest = max((int(each.to_numpy().max(initial=0)) for each in lengths), default=0)
    row_bytes = max(stored // max(group.num_rows, 1), longest, 1)
    return max(1, min(_ROWS, _BATCH_BYTES // row_bytes))


def _row(batch: "pyarrow.RecordBatch", row: int) -> dict[str, object] | None:
    try:
        return {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except UnicodeDecodeError:
        return None
