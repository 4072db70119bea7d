"""Any folder of text, JSON lines or Parquet files."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from llama_jax.config import FilesSource

from ..document import Document, Dropped
from .folder import existing_path, files_below

_WHOLE = (".txt", ".md")
_JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_SUFFIXES = (*_WHOLE, *_JSON_LINES, ".parquet")
_COMPRESSION = 4


class Files:
    """Documents of .txt, .md, .jsonl(.gz/.zst) and .parquet files, in the order of their paths.

    Ids are paths below the folder; records add their line or row, from 1: "a/b.jsonl:17".
    """

    def __init__(self, config: FilesSource):
        self._config = config
        self._root = existing_path(config.name, config.path, give="a file, or a folder of them")

    def size_bytes(self) -> int:
        """Bytes of the files, those of compressed ones counted fourfold."""
        return sum(
            path.stat().st_size * (1 if path.suffix in (*_WHOLE, ".jsonl") else _COMPRESSION)
            for _, path in self._files()
        )

    def documents(self, dropped: Dropped) -> Iterator[Document]:
        """Every record with text; see `DocumentSource`."""
        found = False
        for name, path in self._files():
            found = True
            try:
                yield from self._read(name, path, dropped)
            except (OSError, EOFError, UnicodeDecodeError, *_damage()) as error:
                dropped.add(f"file damaged, the rest of it is lost ({type(error).__name__})", name)
        if not found:
            raise ValueError(
                f"sources.{self._config.name}.path={self._config.path!r} holds no "
                f"{', '.join(_SUFFIXES)} file."
            )

    def _files(self) -> Iterator[tuple[str, Path]]:
        yield from (pair for pair in files_below(self._root) if pair[0].lower().endswith(_SUFFIXES))

    def _read(self, name: str, path: Path, dropped: Dropped) -> Iterator[Document]:
        if name.lower().endswith(_WHOLE):
            records = iter([(name, path.read_text("utf-8"))])
        elif name.lower().endswith(".parquet"):
            records = self._parquet(name, path, dropped)
        else:
            records = self._json_lines(name, path, dropped)
        for record, text in records:
            if not isinstance(text, str):
                dropped.add(f"{self._config.text_field!r} is no text", record)
            elif not text.strip():
                dropped.add("no text", record)
            elif not _is_unicode(text):
                dropped.add("lone surrogates", record)
            else:
                yield Document(record, text)

    def _json_lines(self, name: str, path: Path, dropped: Dropped) -> Iterator[tuple[str, object]]:
        for number, line in enumerate(_lines(path), 1):
            record = f"{name}:{number}"
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

    def _parquet(self, name: str, path: Path, dropped: Dropped) -> Iterator[tuple[str, object]]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            if self._config.text_field not in file.schema_arrow.names:
                dropped.add(f"no column {self._config.text_field!r}", name)
                return
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=[self._config.text_field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"{name}:{number}", text


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zst":
        rest = b""
        for chunk in _decompress_zstandard(path):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        yield rest
    else:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file


def _decompress_zstandard(path: Path) -> Iterator[bytes]:
    """Contents of every frame; the library's own reader takes a cut file for a whole one."""
    import zstandard

    # Published dumps are compressed with windows of up to 2 GiB.
    decompressor, frame = zstandard.ZstdDecompressor(max_window_size=1 << 31), None
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
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
