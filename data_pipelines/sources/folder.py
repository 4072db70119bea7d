"""The files of a source: one file, or those below a folder, on a local disk or behind a URL."""

import bz2
import contextlib
import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..document import RawFile


def raw_files(
    source: str,
    path: str,
    wanted: Callable[[str], bool],
    *,
    kinds: str,
    also: Iterable[RawFile] = (),
) -> Iterator[RawFile]:
    """Files in order of their names, which are paths below `path`; `path` alone if it is a file.

    Args:
        source: Name of the source.
        path: File or folder as configured; a URL goes to fsspec.
        wanted: Tells by the name whether a file is one of this source's.
        kinds: What it wants, such as ".txt", for the message.
        also: What the source has found below `path` beside files.

    Raises:
        ValueError: If there is no such file or folder, or nothing in it that is wanted.
    """
    listed = _remote(path) if "://" in path else _local(path)
    if listed is None:
        raise ValueError(
            f"sources.{source}.path={path!r}: there is no such file or folder; give a {kinds} "
            f"file, or a folder of them. `data build --skip {source}` leaves this source out."
        )
    if not (found := sorted([*(file for file in listed if wanted(file.name)), *also])):
        raise ValueError(f"sources.{source}.path={path!r} holds no {kinds} file.")
    yield from found


@contextlib.contextmanager
def open_decompressed(file: RawFile) -> Iterator[io.BufferedReader | gzip.GzipFile | bz2.BZ2File]:
    """The contents of a file that may be a .gz or .bz2, of several members or streams too."""
    with file.open() as raw:
        suffix = Path(file.name).suffix.lower()
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked
        elif suffix == ".bz2":
            with bz2.BZ2File(raw) as unpacked:
                yield unpacked
        else:
            yield raw


def readable(name: str) -> str:
    """A name as text: bytes of it that are no UTF-8, as systems and tars may have them, escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _local(path: str) -> Iterator[RawFile] | None:
    root = Path(path)
    if not path or not root.exists():
        return None
    if root.is_file():
        return iter([RawFile(readable(root.name), path, root.stat().st_size)])
    below = (found for found in root.rglob("*") if found.is_file())
    return (
        RawFile(readable(found.relative_to(root).as_posix()), str(found), found.stat().st_size)
        for found in below
    )


def _remote(url: str) -> Iterator[RawFile] | None:
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    if not system.exists(root):
        return None
    if system.isfile(root):
        return iter([RawFile(readable(root.rpartition("/")[2]), url, system.size(root))])
    return (
        RawFile(
            readable(found[len(root) :].lstrip("/")), system.unstrip_protocol(found), entry["size"]
        )
        for found, entry in system.find(root, detail=True).items()
    )
