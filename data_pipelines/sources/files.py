"""Any folder of text, JSON lines or Parquet files."""

import json
from collections.abc import Iterator
from pathlib import Path

from llama_jax.config import FilesSource

from ..document import Document, Dropped, RawFile
from .folder import open_decompressed, raw_files

_WHOLE = (".txt", ".md")
_JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_SUFFIXES = (*_WHOLE, *_JSON_LINES, ".parquet")


class Files:
    """Documents of .txt, .md, .jsonl(.gz/.zst) and .parquet files, in the order of their paths.

    Ids are paths below the folder; records add their line or row, from 1: "a/b.jsonl:17".
    """

    def __init__(self, config: FilesSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every file of these kinds; see `DocumentSource`."""
        return raw_files(
            self._config.name,
            self._config.path,
            lambda name: name.lower().endswith(_SUFFIXES),
            kinds=", ".join(_SUFFIXES),
        )

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every record with text; see `DocumentSource`."""
        try:
            yield from self._read(file, dropped)
        except (OSError, EOFError, UnicodeDecodeError, *_damage()) as error:
            reason = f"file damaged, the rest of it is lost ({type(error).__name__})"
            dropped.add(reason, file.name)

    def _read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        if file.name.lower().endswith(_WHOLE):
            with file.open() as opened:
                records = iter([(file.name, opened.read().decode("utf-8"))])
        elif file.name.lower().endswith(".parquet"):
            records = self._parquet(file, dropped)
        else:
            records = self._json_lines(file, dropped)
        for record, text in records:
            if not isinstance(text, str):
                dropped.add(f"{self._config.text_field!r} is no text", record)
            elif not text.strip():
                dropped.add("no text", record)
            elif not _is_unicode(text):
                dropped.add("lone surrogates", record)
            else:
                yield Document(record, text)

    def _json_lines(self, file: RawFile, dropped: Dropped) -> Iterator[tuple[str, object]]:
        for number, line in enumerate(_lines(file), 1):
            record = f"{file.name}:{number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                dropped.add("no valid JSON", record)
                continue
            if not isinstance(value, dict) or self._config.text_field not in value:
                dropped.add(f"no field {self._config.text_field!r}", record)
                continue
            yield record, value[self._config.text_field]

    def _parquet(self, file: RawFile, dropped: Dropped) -> Iterator[tuple[str, object]]:
        import pyarrow.parquet

        with file.open() as opened, pyarrow.parquet.ParquetFile(opened) as table:
            if self._config.text_field not in table.schema_arrow.names:
                dropped.add(f"no column {self._config.text_field!r}", file.name)
                return
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=[self._config.text_field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"{file.name}:{number}", text


def _lines(file: RawFile) -> Iterator[bytes]:
    if Path(file.name).suffix.lower() == ".zst":
        rest = b""
        for chunk in _decompress_zstandard(file):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        yield rest
    else:
        with open_decompressed(file) as lines:
            yield from lines


def _decompress_zstandard(file: RawFile) -> Iterator[bytes]:
    """Contents of every frame; the library's own reader takes a cut file for a whole one."""
    import zstandard

    # Published dumps are compressed with windows of up to 2 GiB.
    decompressor, frame = zstandard.ZstdDecompressor(max_window_size=1 << 31), None
    with file.open() as opened:
        while chunk := opened.read(1 << 20):
            while chunk:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(chunk)
                chunk = b""
                if frame.eof:
                    chunk, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("the last frame is cut short")


def _damage() -> tuple[type[Exception], ...]:
    """What the decompressors and Parquet raise at damaged files."""
    import zlib

    import pyarrow
    import zstandard

    return zlib.error, zstandard.ZstdError, pyarrow.ArrowException


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
