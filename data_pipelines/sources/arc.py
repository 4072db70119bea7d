"""Records of ARC files, the Internet Archive's format before WARC, plain or gzip."""

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ..document import Dropped
from .warc import DAMAGED, GZIP, LOST, MAX_DAMAGES, MAX_RECORD_BYTES, TOO_LARGE, Record, find

_CHUNK_BYTES = 1 << 18
_MAX_LINE_BYTES = 1 << 15
# URL, address, date, type, in version 2 five more fields, length.
_HEADER = re.compile(
    rb"(?P<url>[a-z]+:.*) (?P<address>[\da-f.:]+) (?P<date>\d{12,}) "
    rb"(?P<type>\S*)(?: .*)? (?P<length>\d+)"
)


def arc_records(file: BinaryIO, name: str, dropped: Dropped) -> Iterator[Record]:
    """Every record, as a response, in order; `place` is where it or its gzip member begins.

    Behind damage it goes on at the next line that is a record's header, or at the next member.

    Source: Burner and Kahle, "Arc File Format", Internet Archive, 1996.

    Args:
        file: Seekable.
        name: Of the file, for `dropped`.
        dropped: Counts damaged places and records that are too large.
    """
    file.seek(0)
    is_compressed = file.read(len(GZIP)) == GZIP
    start = 0
    for _ in range(MAX_DAMAGES):
        stream = _Stream(file, start, is_compressed)
        try:
            yield from _records(stream, name, dropped)
        except (zlib.error, EOFError):
            dropped.add_bad(DAMAGED, f"{name}:{stream.member}")
            start = find(file, GZIP, stream.member + 1) if is_compressed else -1
            if start < 0:
                return
        else:
            return
    dropped.add(LOST, name)


def _records(stream: "_Stream", name: str, dropped: Dropped) -> Iterator[Record]:
    is_damaged, last, repeats = False, -1, 0
    while line := stream.line():
        header = _HEADER.fullmatch(line.rstrip(b"\r\n"))
        if header is None:
            if line.strip() and not is_damaged:
                dropped.add_bad(DAMAGED, f"{name}:{stream.place}")
                is_damaged = True
            continue
        is_damaged = False
        repeats = repeats + 1 if stream.place == last else 0
        last = stream.place
        place = f"{last}:{repeats + 1}" if repeats else str(last)
        length = int(header["length"])
        if length > MAX_RECORD_BYTES:
            dropped.add(TOO_LARGE, f"{name}:{place}")
            stream.skip(length)
            continue
        block = stream.read(length)
        if not header["url"].startswith(b"filedesc:"):
            yield Record(
                place=place,
                kind="response",
                url=header["url"].decode("utf-8", "replace"),
                date=header["date"].decode(),
                content_type=header["type"].decode("utf-8", "replace"),
                block=block,
            )


class _Stream:
    """What is in a file, or in its gzip members one behind the other; holds a chunk and a record.

    Attributes:
        member: Where the member that is being read begins.
        place: Where the last line began; its member in a compressed file.
    """

    def __init__(self, file: BinaryIO, start: int, is_compressed: bool):
        file.seek(start)
        self._file = file
        self._is_compressed = is_compressed
        self._buffer, self._at = b"", 0
        self._raw, self._raw_end = b"", start
        self._inflate = zlib.decompressobj(31)
        self.member = self.place = start

    def line(self) -> bytes:
        """The next line, cut at a bound; empty at the end."""
        while self._at >= len(self._buffer) and self._fill():
            pass
        self.place = self.member if self._is_compressed else self._raw_end - self._left()
        while (end := self._buffer.find(b"\n", self._at) + 1) == 0:
            if self._left() >= _MAX_LINE_BYTES or not self._fill():
                end = min(len(self._buffer), self._at + _MAX_LINE_BYTES)
                break
        line, self._at = self._buffer[self._at : end], end
        return line

    def read(self, length: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            EOFError: If the file ends before.
        """
        parts, missing = [], length
        while missing:
            if not self._left() and not self._fill():
                raise EOFError
            part = self._buffer[self._at : self._at + missing]
            parts.append(part)
            self._at += len(part)
            missing -= len(part)
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """Leaves so many bytes out.

        Raises:
            EOFError: If the file ends before.
        """
        while length > 0:
            length -= len(self.read(min(length, _CHUNK_BYTES)))

    def _left(self) -> int:
        return len(self._buffer) - self._at

    def _fill(self) -> bool:
        """Adds to the buffer what comes next; False at the end of the file."""
        rest = self._buffer[self._at :]
        if self._is_compressed and self._inflate.eof:
            if rest:
                return False
            self._raw = self._inflate.unused_data
            self.member = self._raw_end - len(self._raw)
            self._inflate = zlib.decompressobj(31)
        more = b""
        while not more:
            if not self._raw:
                self._raw = self._file.read(_CHUNK_BYTES)
                self._raw_end += len(self._raw)
            if not self._raw:
                if self._is_compressed and self._raw_end > self.member:
                    raise EOFError
                return False
            if not self._is_compressed:
                more, self._raw = self._raw, b""
            else:
                more = self._inflate.decompress(self._raw, _CHUNK_BYTES)
                self._raw = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    break
        self._buffer, self._at = rest + more, 0
        return True
