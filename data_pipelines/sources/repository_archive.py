"""Files of a repository's tar, as `git archive` and GitHub make them."""

from collections.abc import Iterator
from typing import NamedTuple

from ..document import Dropped, RawFile
from .folder import open_decompressed
from .records import MAX_RECORD_BYTES, checked_text
from .tar_members import DAMAGE, Member, TarTooLargeError, tar_members

SUFFIXES = (".tar", ".tar.gz", ".tar.bz2")


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


def read_archive(file: RawFile, dropped: Dropped) -> Iterator[SourceFile]:
    """Text files of a tar, in its order; nothing is unpacked to disk, and no link is followed.

    The repository is named as the archive: "owner/name.tar.gz" holds "owner/name". Paths are those
    in the archive, with the folder that all of them may share.
    """
    suffix = next(suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix))
    repository = file.name[: -len(suffix)]
    try:
        with open_decompressed(file) as unpacked:
            for number, member in enumerate(tar_members(unpacked), 1):
                path = member.name.removeprefix("./")
                record = f"{file.name}:{path}"
                if (text := _text(member, record, dropped)) is not None:
                    yield SourceFile(repository, path, number, "", "", "", record, text)
    except TarTooLargeError:
        dropped.add("larger than an archive may be, the rest of it is lost", file.name)
    except DAMAGE as error:
        dropped.add_bad(f"file damaged, the rest of it is lost ({type(error).__name__})", file.name)


def _text(member: Member, record: str, dropped: Dropped) -> str | None:
    """The member's text, or None, with the reason recorded if it is a file or a link."""
    if member.is_folder:
        return None
    if member.refused:
        return dropped.add(member.refused, record)
    if member.size_bytes > MAX_RECORD_BYTES:
        return dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", record)
    return decoded(member.read(), record, dropped)


def decoded(data: bytes, record: str, dropped: Dropped) -> str | None:
    """A file's text, or None, with the reason recorded."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return dropped.add_bad("not UTF-8", record)
    if "\0" in text:
        return dropped.add("no text: has NUL characters", record)
    return checked_text(text, "content", record, dropped)
