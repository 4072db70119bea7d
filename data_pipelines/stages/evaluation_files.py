"""Items of evaluation sets: every text of every record of every file."""

import bz2
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.checksum import file_sha256

_SUFFIXES = (".jsonl", ".txt")
_PACKED = ("", ".gz", ".bz2")


class ItemText(NamedTuple):
    """A text of an evaluation item.

    Attributes:
        item: File and number of the record, from 1: "gsm8k.jsonl:17".
        field: File and key; texts of one field may share a template.
        text: The text.
    """

    item: str
    field: str
    text: str


def evaluation_files(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """Names and paths of the files, in order of name.

    Raises:
        ValueError: If a path does not exist, or has no such file.
    """
    found = []
    for given in paths:
        root, where = Path(given), f"filters.decontamination.paths={given!r}"
        if not root.exists():
            raise ValueError(f"{where}: there is no such file or folder.")
        below = sorted(root.rglob("*")) if root.is_dir() else [root]
        start = root if root.is_dir() else root.parent
        wanted = [(path.relative_to(start).as_posix(), path) for path in below if _kind(path)]
        if not wanted:
            raise ValueError(
                f"{where} has no .jsonl, .txt (or .gz, .bz2 of them) or .parquet file."
            )
        found += wanted
    return sorted(found)


def fingerprint(files: Sequence[tuple[str, Path]]) -> str:
    """Changes with a name or a byte of the files."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\n{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def read_items(name: str, path: Path) -> Iterator[ItemText]:
    """Every text of a file.

    Raises:
        ValueError: If the file is damaged; an evaluation set must not be missed in silence.
    """
    import pyarrow

    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from _parquet(name, path)
            return
        opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if kind == ".txt":
                    yield ItemText(f"{name}:{number}", name, line)
                elif line.strip():
                    yield from _texts(name, number, json.loads(line))
    except (ValueError, RecursionError, OSError, EOFError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"filters.decontamination.paths: {path} cannot be read ({type(error).__name__}: "
            f"{error}); repair it, or leave it out."
        ) from error


def _kind(path: Path) -> str:
    if path.suffix == ".parquet":
        return path.suffix
    endings = (kind for kind in _SUFFIXES for pack in _PACKED if path.name.endswith(kind + pack))
    return next(endings, "")


def _parquet(name: str, path: Path) -> Iterator[ItemText]:
    import pyarrow.parquet

    number = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            for record in batch.to_pylist():
                number += 1
                yield from _texts(name, number, record)


def _texts(name: str, number: int, record: Any) -> Iterator[ItemText]:
    waiting: list[tuple[str, Any]] = [("", record)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield ItemText(f"{name}:{number}", f"{name}:{key}", value)
        elif isinstance(value, dict):
            waiting += [(f"{key}.{inner}", inside) for inner, inside in value.items()]
        elif isinstance(value, list):
            waiting += [(key, inside) for inside in value]
