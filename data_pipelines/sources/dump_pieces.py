"""A piece of a MediaWiki dump, as a dump of its own: its head, then the pages that begin there."""

import contextlib
import io
import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Protocol

from ..document import RawFile
from .folder import open_decompressed
from .pieces import open_piece

_CHUNK_BYTES = 1 << 18
# Before its first page a dump names its wiki and that wiki's namespaces.
_MAX_HEAD_BYTES = 1 << 24
# In text a dump has no bare "<".
_PAGE = re.compile(rb"<page[\s>]")
_PAGE_BYTES = 6
_END = b"</mediawiki>\n"
_EMPTY = b"<mediawiki></mediawiki>\n"


class Dump(Protocol):
    """A stream of bytes."""

    def read1(self, size: int, /) -> bytes:
        """Some of those that come next, nothing at the end."""
        ...


@contextlib.contextmanager
def open_dump(file: RawFile) -> Iterator[Dump]:
    """A dump, or a piece of one; a page that begins in a piece is in it to its end.

    Raises:
        EOFError: If the dump has no page in its first 16 MiB.
    """
    if not file.stop:
        with open_decompressed(file) as dump:
            yield dump
        return
    with open_piece(file) as (within, behind):
        yield _Stream(_pages(file, within, behind))


class _Stream:
    """Bytes that come in chunks of any size."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks

    def read1(self, size: int, /) -> bytes:
        return next(filter(None, self._chunks), b"")


def _pages(file: RawFile, within: io.BufferedIOBase, behind: io.BufferedIOBase) -> Iterator[bytes]:
    if file.start:
        ahead = yield from _from_first_page(file, within, behind)
        if ahead is None:
            yield _EMPTY
            return
    else:
        ahead = b""
        yield from _chunks(within)
    yield from _until_first_page(itertools.chain([ahead], _chunks(behind)))


def _from_first_page(
    file: RawFile, within: io.BufferedIOBase, behind: io.BufferedIOBase
) -> Generator[bytes, None, bytes | None]:
    """The dump's head and all from the first page on; then what was read behind it, or no page."""
    rest, chunks = b"", _chunks(within)
    for chunk in chunks:
        rest += chunk
        if found := _PAGE.search(rest):
            yield from (_head(file), rest[found.start() :])
            yield from chunks
            return b""
        rest = rest[1 - _PAGE_BYTES :]
    # A tag can begin in the piece and end behind it.
    ahead = behind.read(_PAGE_BYTES - 1) if b"<" in rest else b""
    found = _PAGE.search(rest + ahead)
    if found is None or found.start() >= len(rest):
        return None
    yield from (_head(file), rest[found.start() :])
    return ahead


def _head(file: RawFile) -> bytes:
    head = b""
    with open_decompressed(file) as dump:
        for chunk in _chunks(dump):
            head += chunk
            if found := _PAGE.search(head):
                return head[: found.start()]
            if len(head) > _MAX_HEAD_BYTES:
                break
    raise EOFError(f"no page in its first {len(head):,} bytes")


def _until_first_page(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Bytes before the first page, then the end of a dump; or all, if there is none."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        if found := _PAGE.search(rest):
            yield rest[: found.start()] + _END
            return
        yield rest[: 1 - _PAGE_BYTES]
        rest = rest[1 - _PAGE_BYTES :]
    yield rest


def _chunks(dump: Dump) -> Iterator[bytes]:
    # Not `read`: it loses what it has already decompressed where a file is cut short.
    while chunk := dump.read1(_CHUNK_BYTES):
        yield chunk
