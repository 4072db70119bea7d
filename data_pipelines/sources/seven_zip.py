"""Members of a 7z archive as streams, in bounded memory; nothing is unpacked to disk.

Read is what text is published in: solid or not, packed by BZip2, LZMA, LZMA2 or not at all, with a
header that may be packed itself. Of chains of methods, of others and of encryption it is said that
they are not read.

Source: the format as 7-Zip's author describes it, I. Pavlov, "7zFormat.txt", LZMA SDK.
"""

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

from .seven_zip_header import (
    BEGINNING_BYTES,
    DamagedError,
    Folder,
    Member,
    NotReadError,
    read_header,
)

_SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_BEGINNING = struct.Struct("<6s2xI20s")
_WHERE = struct.Struct("<QQI")
_MAX_HEADER_BYTES = 1 << 20
# 7-Zip's highest level takes as much.
_MIN_DICTIONARY_BYTES, _MAX_DICTIONARY_BYTES = 4096, 256 << 20
# Text is packed to a tenth; of zeros a byte makes thousands, before the member that is wanted too.
_MAX_EXPANSION = 100
_FREE_BYTES = 8 << 20
_PIECE_BYTES = 1 << 16
_COPY, _LZMA, _LZMA2, _BZIP2 = b"\0", b"\3\1\1", b"\x21", b"\4\2\2"

# What reading raises at damage.
DAMAGE = (DamagedError, EOFError, OSError, lzma.LZMAError)


def members(file: BinaryIO) -> list[Member]:
    """Every file with contents, in order.

    Raises:
        NotReadError: If it is of a kind that is not read.
        DAMAGE: One of these, at damage.
    """
    file.seek(0)
    signature, crc_of_where, where = _BEGINNING.unpack(_exactly(file, BEGINNING_BYTES))
    if signature != _SIGNATURE or zlib.crc32(where) != crc_of_where:
        raise DamagedError
    offset, size, crc = _WHERE.unpack(where)
    if not size:
        return []
    end = file.seek(0, io.SEEK_END)

    def unpack(folder: Folder, crc: int | None) -> bytes:
        _check_places([folder], end)
        _check_header(folder.unpacked_bytes)
        data = _exactly(io.BufferedReader(_Unpacked(file, folder)), folder.unpacked_bytes)
        if crc not in (None, zlib.crc32(data)):
            raise DamagedError
        return data

    header = Folder(_COPY, b"", BEGINNING_BYTES + offset, size, size)
    found = read_header(unpack(header, crc), unpack)
    _check_places((each.folder for each in found), end)
    return found


def _check_header(size: int) -> None:
    if size > _MAX_HEADER_BYTES:
        raise NotReadError(f"a header of more than {_MAX_HEADER_BYTES:,} bytes")


def _check_places(folders: Iterable[Folder], end: int) -> None:
    if any(folder.start + folder.packed_bytes > end for folder in folders):
        raise EOFError


def open_member(file: BinaryIO, member: Member) -> io.BufferedReader:
    """The contents of a member; at their end the checksum is compared.

    Raises:
        NotReadError: If it would take more memory or expands more than text does.

    Reading raises one of `DAMAGE` where it is damaged.
    """
    return io.BufferedReader(_Contents(_Unpacked(file, member.folder), member), _PIECE_BYTES)


class _Unpacked(io.RawIOBase):
    """What is packed in a folder."""

    def __init__(self, file: BinaryIO, folder: Folder):
        if folder.unpacked_bytes > _MAX_EXPANSION * folder.packed_bytes + _FREE_BYTES:
            raise NotReadError("it expands too much")
        self._file, self._folder = file, folder
        self._at, self._end = folder.start, folder.start + folder.packed_bytes
        self._decoder = _decoder(folder)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof:
            piece = self._piece() if self._decoder.needs_input else b""
            if data := self._decoder.decompress(piece, len(buffer)):
                buffer[: len(data)] = data
                return len(data)
            if not piece:
                break
        return 0

    def _piece(self) -> bytes:
        self._file.seek(self._at)
        piece = self._file.read(min(_PIECE_BYTES, self._end - self._at))
        self._at += len(piece)
        return piece


class _Contents(io.RawIOBase):
    """A member of a folder."""

    def __init__(self, unpacked: io.RawIOBase, member: Member):
        self._unpacked, self._member = unpacked, member
        self._to_skip, self._left, self._crc = member.before_bytes, member.num_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while self._to_skip:
            self._to_skip -= self._some(view[: self._to_skip])
        if not self._left:
            if self._member.crc not in (None, self._crc):
                raise DamagedError
            return 0
        count = self._some(view[: self._left])
        self._left -= count
        self._crc = zlib.crc32(view[:count], self._crc)
        return count

    def _some(self, view: memoryview) -> int:
        if not (count := self._unpacked.readinto(view) or 0):
            raise EOFError
        return count


class _Copied:
    """What is not packed, as decoders give it."""

    eof, needs_input = False, True

    def __init__(self) -> None:
        self._rest = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data = self._rest + data
        self._rest = data[max_length:]
        self.needs_input = not self._rest
        return data[:max_length]


def _decoder(folder: Folder) -> Any:
    method, properties = folder.method, folder.properties
    if method == _COPY:
        return _Copied()
    if method == _BZIP2:
        return bz2.BZ2Decompressor()
    if method == _LZMA and len(properties) == 5:
        modes, size = struct.unpack("<BI", properties)
        filters = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": max(size, _MIN_DICTIONARY_BYTES),
            "lc": modes % 9,
            "lp": modes // 9 % 5,
            "pb": modes // 45,
        }
    elif method == _LZMA2 and len(properties) == 1:
        power, half = divmod(properties[0], 2)
        filters = {"id": lzma.FILTER_LZMA2, "dict_size": (2 | half) << power + 11}
    else:
        raise NotReadError(f"method {method.hex()}")
    if filters["dict_size"] > _MAX_DICTIONARY_BYTES:
        raise NotReadError(f"a dictionary of more than {_MAX_DICTIONARY_BYTES:,} bytes")
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])
    except ValueError as error:
        raise DamagedError from error


def _exactly(file: Any, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
