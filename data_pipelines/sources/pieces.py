"""Pieces of large files: the bytes at which the records of one task begin, and what is behind.

A piece is any range of a file's bytes; its records are those that begin there. So a file can be cut
without being read, and the last record of a piece may end in the next one.
"""

import bz2
import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..document import RawFile

# A stream's header and its first block's: six bytes of pi behind four of text.
_BZ2_STREAM = re.compile(rb"BZh[1-9]1AY&SY")
_HEADER_BYTES = 10
_CHUNK_BYTES = 1 << 20
# Streams of Wikipedia's dumps hold 100 pages, those of pbzip2 up to 900,000 bytes.
_LOOKED_THROUGH_BYTES = 4 << 20


def is_bz2(file: RawFile) -> bool:
    """Whether a file is compressed by bzip2, by its name."""
    return file.name.lower().endswith(".bz2")


def has_streams(file: RawFile) -> bool:
    """Whether a .bz2 is of several streams, by what it begins with."""
    with file.open() as raw:
        return _next_stream(raw, 1, min(_LOOKED_THROUGH_BYTES, file.size_bytes)) >= 0


@contextlib.contextmanager
def open_piece(file: RawFile) -> Iterator[tuple[io.BufferedIOBase, io.BufferedIOBase]]:
    """What begins in a piece, and all that comes behind it; of a .bz2 the streams, unpacked.

    Read one after the other they are contiguous.
    """
    with file.open() as raw:
        start, stop, end = file.start, file.stop, file.size_bytes
        if not is_bz2(file):
            yield _buffered(raw, start, stop), _buffered(raw, stop, end)
            return
        if (start := _next_stream(raw, start, stop)) < 0:
            yield io.BytesIO(), io.BytesIO()
            return
        if (stop := _next_stream(raw, stop, end)) < 0:
            stop = end
        packed = _buffered(raw, start, stop), _buffered(raw, stop, end)
        within, behind = (io.BufferedReader(_Streams(each), _CHUNK_BYTES) for each in packed)
        yield within, behind


def _next_stream(raw: BinaryIO, start: int, stop: int) -> int:
    """Where the first stream begins that does so in a range of bytes; -1 if none does."""
    raw.seek(start)
    rest, position = b"", start
    while position < stop + _HEADER_BYTES and (chunk := raw.read(_CHUNK_BYTES)):
        data = rest + chunk
        if found := _BZ2_STREAM.search(data):
            at = position - len(rest) + found.start()
            return at if at < stop else -1
        position += len(chunk)
        rest = data[1 - _HEADER_BYTES :]
    return -1


def _buffered(raw: BinaryIO, start: int, stop: int) -> io.BufferedReader:
    return io.BufferedReader(_Range(raw, start, stop), _CHUNK_BYTES)


class _Range(io.RawIOBase):
    """Some bytes of a file, which others read too."""

    def __init__(self, raw: BinaryIO, start: int, stop: int):
        self._raw, self._at, self._stop = raw, start, stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._raw.seek(self._at)
        data = self._raw.read(min(len(buffer), self._stop - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Streams(io.RawIOBase):
    """Streams of bzip2 unpacked; `bz2.BZ2File` passes over what is behind a damaged header."""

    def __init__(self, packed: BinaryIO):
        self._packed = packed
        self._stream: bz2.BZ2Decompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._stream is None or self._stream.eof:
                rest = self._stream.unused_data if self._stream else b""
                if not (data := rest or self._packed.read(_CHUNK_BYTES)):
                    return 0
                self._stream = bz2.BZ2Decompressor()
            elif self._stream.needs_input and not (data := self._packed.read(_CHUNK_BYTES)):
                raise EOFError("the last stream is cut short")
            unpacked = self._stream.decompress(data, len(buffer))
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)
