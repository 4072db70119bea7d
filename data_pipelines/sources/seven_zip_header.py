"""What the header of a 7z archive says: which members there are, and where.

Source: the format as 7-Zip's author describes it, I. Pavlov, "7zFormat.txt", LZMA SDK.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Of the archive; places are counted from behind them.
BEGINNING_BYTES = 32
_MAX_COUNT = 1 << 16
_END, _HEADER, _PROPERTIES, _STREAMS, _FILES = 0x00, 0x01, 0x02, 0x04, 0x05
_PACKED, _FOLDERS, _SUBSTREAMS = 0x06, 0x07, 0x08
_SIZE, _CRC, _FOLDER, _UNPACKED_SIZE, _NUM_SUBSTREAMS = 0x09, 0x0A, 0x0B, 0x0C, 0x0D
_OTHER_METHODS = {
    b"\x06\xf1\x07\x01": "encryption",
    b"\3\4\1": "PPMd",
    b"\4\1\x08": "Deflate",
    b"\4\xf7\x11\1": "Zstandard",
}
_EMPTY, _NAMES, _PACKED_HEADER = 0x0E, 0x11, 0x17


class NotReadError(Exception):
    """An archive that may be whole, of a kind that is not read; the message says which."""


class DamagedError(Exception):
    """What no program has written."""


class Folder(NamedTuple):
    """Members that are packed as one.

    Attributes:
        method: How, as the format numbers it.
        properties: Of the method.
        start: Where it begins in the file.
        packed_bytes: Of it there.
        unpacked_bytes: Of all its members.
    """

    method: bytes
    properties: bytes
    start: int
    packed_bytes: int
    unpacked_bytes: int


class Member(NamedTuple):
    """A file with contents.

    Attributes:
        name: Its path.
        folder: It is packed in.
        before_bytes: Of members before it in the folder.
        num_bytes: Of itself.
        crc: CRC-32 of its contents, if it is known.
    """

    name: str
    folder: Folder
    before_bytes: int
    num_bytes: int
    crc: int | None


class _Cursor:
    """A header that is read from its beginning."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise EOFError
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """As many bytes follow the first one as it has ones in front; its other bits are on top."""
        first = self.byte()
        more = 8 - (first ^ 0xFF).bit_length()
        return int.from_bytes(self.take(more), "little") + (
            (first & (0xFF >> more + 1)) << 8 * more
        )

    def count(self) -> int:
        if (count := self.number()) > _MAX_COUNT:
            raise NotReadError(f"more than {_MAX_COUNT:,} files")
        return count

    def bits(self, count: int) -> list[bool]:
        data = self.take(-(-count // 8))
        return [bool(data[at // 8] & 0x80 >> at % 8) for at in range(count)]

    def checksums(self, count: int) -> list[int | None]:
        known = [True] * count if self.byte() else self.bits(count)
        return [int.from_bytes(self.take(4), "little") if each else None for each in known]

    def expect(self, kind: int) -> None:
        if self.byte() != kind:
            raise DamagedError


class _Part(NamedTuple):
    """Of a folder: bytes, and their checksum."""

    num_bytes: int
    crc: int | None


_Streams = list[tuple[Folder, list[_Part]]]


def _streams(header: _Cursor) -> _Streams:
    """Folders, and what is in each."""
    header.expect(_PACKED)
    start, count = BEGINNING_BYTES + header.number(), header.count()
    packed = [0] * count
    while (kind := header.byte()) != _END:
        if kind == _SIZE:
            packed = [header.number() for _ in range(count)]
        elif kind == _CRC:
            header.checksums(count)
        else:
            raise DamagedError
    starts = list(itertools.accumulate(packed, initial=start))
    header.expect(_FOLDERS)
    header.expect(_FOLDER)
    num_folders = header.count()
    if header.byte():
        raise NotReadError("folders that are described elsewhere")
    if num_folders != count:
        raise NotReadError("a chain of methods")
    methods = [_method(header) for _ in range(num_folders)]
    header.expect(_UNPACKED_SIZE)
    sizes = [header.number() for _ in range(num_folders)]
    checksums: list[int | None] = [None] * num_folders
    while (kind := header.byte()) != _END:
        if kind != _CRC:
            raise DamagedError
        checksums = header.checksums(num_folders)
    folders = [
        Folder(*method, start, packed_bytes, size)
        for method, start, packed_bytes, size in zip(methods, starts, packed, sizes, strict=False)
    ]
    parts = [[_Part(size, crc)] for size, crc in zip(sizes, checksums, strict=True)]
    if (kind := header.byte()) == _SUBSTREAMS:
        parts = _substreams(header, parts)
        kind = header.byte()
    if kind != _END:
        raise DamagedError
    return list(zip(folders, parts, strict=True))


def _method(header: _Cursor) -> tuple[bytes, bytes]:
    count, flags = header.number(), header.byte()
    method = header.take(flags & 0x0F)
    if method in _OTHER_METHODS:
        raise NotReadError(_OTHER_METHODS[method])
    if count != 1 or flags & 0xD0:
        raise NotReadError("a chain of methods")
    return method, header.take(header.number()) if flags & 0x20 else b""


def _substreams(header: _Cursor, whole: list[list[_Part]]) -> list[list[_Part]]:
    """Members of each folder, of which the header tells all sizes but the last one's."""
    kind = header.byte()
    counts = [1] * len(whole)
    if kind == _NUM_SUBSTREAMS:
        counts = [header.count() for _ in whole]
        if sum(counts) > _MAX_COUNT:
            raise NotReadError(f"more than {_MAX_COUNT:,} files")
        kind = header.byte()
    sizes: list[list[int]] = []
    for (folder,), count in zip(whole, counts, strict=True):
        # Else there is nothing more to tell.
        told = [header.number() for _ in range(count - 1)] if kind == _SIZE else []
        last = folder.num_bytes - sum(told)
        if last < 0 or len(told) != max(count - 1, 0):
            raise DamagedError
        sizes.append([*told, last][:count])
    if kind == _SIZE:
        kind = header.byte()
    is_told = [
        count == 1 and part.crc is not None for (part,), count in zip(whole, counts, strict=True)
    ]
    found: list[int | None] = [None] * sum(
        count for count, told in zip(counts, is_told, strict=True) if not told
    )
    while kind != _END:
        if kind != _CRC:
            raise DamagedError
        found = header.checksums(len(found))
        kind = header.byte()
    left = iter(found)
    return [
        folder if told else [_Part(size, next(left)) for size in of_folder]
        for folder, told, of_folder in zip(whole, is_told, sizes, strict=True)
    ]


def read_header(data: bytes, unpack: Callable[[Folder, int | None], bytes]) -> list[Member]:
    """Every file with contents, in order.

    Args:
        data: The header.
        unpack: Gives what is in a folder, by the folder and a checksum: headers may be packed.

    Raises:
        NotReadError: If it is of a kind that is not read.
        DamagedError, EOFError: At damage.
    """
    header = _Cursor(data)
    if (kind := header.byte()) == _PACKED_HEADER:
        streams = _streams(header)
        if [len(parts) for _, parts in streams] != [1]:
            raise DamagedError
        ((folder, (part,)),) = streams
        header = _Cursor(unpack(folder, part.crc))
        kind = header.byte()
    if kind != _HEADER:
        raise DamagedError
    return list(_members(header))


def _members(header: _Cursor) -> Iterator[Member]:
    streams: _Streams = []
    names: list[str] = []
    empty: list[bool] = []
    while (kind := header.byte()) != _END:
        if kind == _PROPERTIES:
            while header.byte() != _END:
                header.take(header.number())
        elif kind == _STREAMS:
            streams = _streams(header)
        elif kind == _FILES:
            names, empty = _files(header)
        else:
            raise DamagedError
    filled = (name for name, is_empty in zip(names, empty, strict=True) if not is_empty)
    for folder, parts in streams:
        before = 0
        for part in parts:
            yield Member(next(filled, ""), folder, before, *part)
            before += part.num_bytes


def _files(header: _Cursor) -> tuple[list[str], list[bool]]:
    """Names, and which of the files have no contents."""
    count = header.count()
    names, empty = [""] * count, [False] * count
    while (kind := header.byte()) != _END:
        field = _Cursor(header.take(header.number()))
        if kind == _EMPTY:
            empty = field.bits(count)
        elif kind == _NAMES:
            if field.byte():
                raise NotReadError("names that are elsewhere")
            told = field.rest().decode("utf-16-le", "replace").split("\0")[:count]
            names = told + [""] * (count - len(told))
    return names, empty
