"""Files of a repository's tar, as `git archive` and GitHub make them."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from ..document import Dropped, RawFile
from .folder import open_decompressed
from .records import MAX_RECORD_BYTES, checked_text

SUFFIXES = (".tar", ".tar.gz", ".tar.bz2")
_MAX_ARCHIVE_BYTES = 16 << 30
_MAX_PATH_CHARACTERS = 4096
# A chain of extended headers recurses in tarfile.
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError)


class SourceFile(NamedTuple):
    """A file of a repository.

    Attributes:
        repository: Its name: "owner/name".
        path: Below the repository's root.
        number: Its place in the raw file.
        language: Programming language, as the raw file says; may be empty.
        licence: SPDX expressions, one a line, as the raw file says; may be empty.
        url: Where it is to be found in public; may be empty.
        record: Id of the raw record.
        text: What stands in it.
    """

    repository: str
    path: str
    number: int
    language: str
    licence: str
    url: str
    record: str
    text: str


class _TooLargeError(Exception):
    """More than the archive of a repository holds."""


class _Capped:
    """The unpacked tar, of which no header can ask for more than memory holds."""

    def __init__(self, unpacked: Any):
        self._unpacked = unpacked
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > MAX_RECORD_BYTES:
            raise _TooLargeError
        self.last = self._unpacked.read(size)
        return self.last

    def seek(self, position: int) -> int:
        if position > _MAX_ARCHIVE_BYTES:
            raise _TooLargeError
        return self._unpacked.seek(position)

    def tell(self) -> int:
        return self._unpacked.tell()


def read_archive(file: RawFile, dropped: Dropped) -> Iterator[SourceFile]:
    """Text files of a tar, in its order; nothing is unpacked to disk, and no link is followed.

    The repository is named as the archive: "owner/name.tar.gz" holds "owner/name". Paths are those
    in the archive, with the folder that all of them may share.
    """
    suffix = next(suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix))
    repository = file.name[: -len(suffix)]
    try:
        with open_decompressed(file) as unpacked:
            capped = _Capped(unpacked)
            with tarfile.open(fileobj=cast(BinaryIO, capped), mode="r:") as tar:
                number = 0
                while member := tar.next():
                    number += 1
                    # It would keep every header.
                    vars(tar)["members"].clear()
                    path = member.name.removeprefix("./")
                    record = f"{file.name}:{path[:_MAX_PATH_CHARACTERS]}"
                    if (text := _text(tar, member, record, dropped)) is not None:
                        yield SourceFile(repository, path, number, "", "", "", record, text)
                # A damaged header looks like an end to tarfile.
                if capped.last.strip(b"\0"):
                    raise EOFError
    except _TooLargeError:
        dropped.add("larger than an archive may be, the rest of it is lost", file.name)
    except _DAMAGE as error:
        dropped.add_bad(f"file damaged, the rest of it is lost ({type(error).__name__})", file.name)


def _text(
    tar: tarfile.TarFile, member: tarfile.TarInfo, record: str, dropped: Dropped
) -> str | None:
    """The member's text, or None, with the reason recorded if it is a file or a link."""
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        return dropped.add("a link or a device", record)
    path = PurePosixPath(member.name)
    if len(member.name) > _MAX_PATH_CHARACTERS or path.is_absolute() or ".." in path.parts:
        return dropped.add("a path out of the archive", record)
    if member.size > MAX_RECORD_BYTES:
        return dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", record)
    opened = tar.extractfile(member)
    assert opened is not None
    return decoded(opened.read(), record, dropped)


def decoded(data: bytes, record: str, dropped: Dropped) -> str | None:
    """A file's text, or None, with the reason recorded."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return dropped.add_bad("not UTF-8", record)
    if "\0" in text:
        return dropped.add("no text: has NUL characters", record)
    return checked_text(text, "content", record, dropped)
