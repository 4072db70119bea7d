"""Records of web archives: WARC and WET, plain, gzip, zstd or LZ4."""

import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from ..document import Dropped

# A page of more is no page; a crawl cuts them at 1 to 5 MiB.
MAX_RECORD_BYTES = 16 << 20
MAX_DAMAGES = 1_000
DAMAGED = "record damaged"
LOST = f"file damaged in {MAX_DAMAGES:,} places, the rest of it is lost"
TOO_LARGE = f"record of more than {MAX_RECORD_BYTES:,} bytes"
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 512
_WANTED = ("response", "resource", "conversion")
# What a record begins with, by what its file begins with.
GZIP, _ZSTD, _LZ4, PLAIN = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"WARC/"
_MAGICS = {".gz": GZIP, ".zst": _ZSTD, ".lz4": _LZ4}


class Record(NamedTuple):
    """A record of an archive that may hold a page.

    Attributes:
        place: Byte at which it begins in its file, compressed as that is; ":2" and so on is added
            for those that follow in the same compressed member.
        kind: "response", "resource" or "conversion".
        url: Of the page.
        date: When it was fetched, as the archive has it.
        content_type: Of the block.
        block: What was recorded, HTTP header included.
    """

    place: str
    kind: str
    url: str
    date: str
    content_type: str
    block: bytes


def warc_records(file: BinaryIO, name: str, dropped: Dropped) -> Iterator[Record]:
    """Responses, resources and conversions of a file, in order.

    Behind damage it goes on at the next byte that begins a record. A record is given once the one
    behind it was looked for: only then is its checksum known to be right.

    Args:
        file: Seekable.
        name: Of the file, for `dropped`.
        dropped: Counts damaged places and records that are too large.
    """
    file.seek(0)
    is_plain = file.read(len(PLAIN)) == PLAIN
    magic = PLAIN if is_plain else _MAGICS.get(PurePosixPath(name).suffix.lower(), PLAIN)
    start, is_damaged = 0, False
    for _ in range(MAX_DAMAGES):
        read, waiting, last, place = _placed(file, start), None, start, str(start)
        try:
            for place, last, record in read:  # noqa: B007 - it says where damage was
                if waiting is not None:
                    yield waiting
                waiting, is_damaged = None, False
                if str(record.record_type) not in _WANTED:
                    continue
                if record.content_length > MAX_RECORD_BYTES:
                    # Lengths that are damaged reach behind the end.
                    if record.consume() < record.content_length:
                        raise OSError("cut short")
                    dropped.add(TOO_LARGE, f"{name}:{place}")
                elif (waiting := _read(place, record)) is None:
                    raise OSError("cut short")
        except OSError:
            if waiting is not None and (magic != GZIP or _member_end(file, last)):
                yield waiting
                place = f"behind {place}"
            # One place that takes several attempts to get over is counted once.
            if not is_damaged:
                dropped.add_bad(DAMAGED, f"{name}:{place}")
            is_damaged = True
        else:
            if waiting is not None:
                yield waiting
            # fastwarc takes a file that is cut in the header of a record for a whole one.
            if magic == GZIP and 0 <= _member_end(file, last) < file.seek(0, 2):
                dropped.add_bad(DAMAGED, f"{name}:behind {place}")
            return
        if (start := find(file, magic, last + 1)) < 0:
            return
    dropped.add(LOST, name)


def find(file: BinaryIO, magic: bytes, start: int) -> int:
    """Position of the next `magic` from `start` on, or -1."""
    file.seek(start)
    rest, position = b"", start
    while chunk := file.read(_CHUNK_BYTES):
        if (found := (rest + chunk).find(magic)) >= 0:
            return position - len(rest) + found
        position += len(chunk)
        rest = (rest + chunk)[1 - len(magic) :]
    return -1


def _placed(file: BinaryIO, start: int):
    from fastwarc.warc import ArchiveIterator

    last, repeats = -1, 0
    quirks = _has_unix_lines(file, start)
    for record in ArchiveIterator(file, parse_http=False, quirks_mode=quirks):
        offset = record.stream_pos
        repeats = repeats + 1 if offset == last else 0
        last = offset
        yield f"{offset}:{repeats + 1}" if repeats else str(offset), offset, record


def _has_unix_lines(file: BinaryIO, start: int) -> bool:
    """Whether the lines from `start` on end in LF alone, as several crawlers wrote them.

    fastwarc reads them only in its quirks mode, in which it also passes over damage in silence.
    """
    file.seek(start)
    head = file.read(_HEAD_BYTES)
    file.seek(start)
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
        except zlib.error:
            return False
    return head.startswith(PLAIN) and not head.partition(b"\n")[0].endswith(b"\r")


def _read(place: str, record) -> Record | None:
    """The record, or None if its file ends before it does."""
    block = record.reader.read(record.content_length) if record.content_length else b""
    if len(block) < record.content_length:
        return None
    headers = record.headers
    return Record(
        place=place,
        kind=str(record.record_type),
        url=(headers.get("WARC-Target-URI") or "").strip("<> "),
        date=headers.get("WARC-Date") or "",
        content_type=headers.get("Content-Type") or "",
        block=block,
    )


def _member_end(file: BinaryIO, offset: int) -> int:
    """Where the gzip member at `offset` ends; 0 if it is damaged, -1 if there is none."""
    file.seek(offset)
    member, data = zlib.decompressobj(31), file.read(len(GZIP))
    if data != GZIP:
        return -1
    try:
        while not member.eof and data:
            member.decompress(data, _CHUNK_BYTES)
            data = member.unconsumed_tail or file.read(_CHUNK_BYTES)
    except zlib.error:
        return 0
    return file.tell() - len(member.unused_data) if member.eof else 0
