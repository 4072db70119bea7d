"""Members of a tar, hostile as it may be: nothing is unpacked to disk, and no link is followed."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from .folder import readable

# What reading raises at damage. A chain of extended headers recurses in tarfile.
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError)
_MAX_TAR_BYTES = 16 << 30
# Of all headers of a member: its long name, extended attributes, holes of a sparse file. tarfile
# before Python 3.11.10 takes time with the square of it.
_MAX_HEADER_BYTES = 64 << 10
_MAX_NAME_CHARACTERS = 4096


class TarTooLargeError(Exception):
    """A tar of more, or with longer headers, than anybody packs."""


class Member:
    """A member of a tar, to be read before the next one is asked for.

    Attributes:
        name: Its path in the tar, readable, cut at a bound.
        is_folder: Whether it is one.
        size_bytes: Of its contents.
        refused: Why it is not to be read; empty where it may be.
    """

    def __init__(self, info: tarfile.TarInfo, unpacked: BinaryIO):
        self._info, self._unpacked = info, unpacked
        self.name = readable(info.name[:_MAX_NAME_CHARACTERS])
        self.is_folder = info.isdir()
        self.size_bytes = info.size
        self.refused = _why_not(info)

    def read(self) -> bytes:
        """Its contents.

        Raises:
            tarfile.ReadError: If the tar ends before they do.
        """
        assert not self.refused
        self._unpacked.seek(self._info.offset_data)
        data = self._unpacked.read(self.size_bytes)
        if len(data) < self.size_bytes:
            raise tarfile.ReadError("unexpected end of data")
        return data


def tar_members(unpacked: Any) -> Iterator[Member]:
    """Members in their order, folders and links among them.

    Args:
        unpacked: The tar, seekable, without compression.

    Raises:
        TarTooLargeError: If it asks for more than memory or patience holds.
        DAMAGE: One of these, at damage; what came before it is given.
    """
    capped = _Capped(unpacked)
    with tarfile.open(fileobj=cast(BinaryIO, capped), mode="r:") as tar:
        offset = -1
        while (info := tar.next()) is not None:
            # A negative size leads back, for ever.
            if info.size < 0 or tar.offset <= offset:
                raise tarfile.ReadError("a member of negative size")
            offset = tar.offset
            # Both would grow with the tar.
            vars(tar)["members"].clear()
            vars(tar)["pax_headers"].clear()
            yield Member(info, unpacked)
            capped.begin()
        # A damaged header looks like an end to tarfile.
        if capped.last.strip(b"\0"):
            raise EOFError


def _why_not(info: tarfile.TarInfo) -> str:
    if not info.isreg() or info.issparse():
        return "a link or a device"
    path = PurePosixPath(info.name)
    if len(info.name) > _MAX_NAME_CHARACTERS or path.is_absolute() or ".." in path.parts:
        return "a path out of the archive"
    return ""


class _Capped:
    """The tar as tarfile sees it, of which headers can ask for so much alone."""

    def __init__(self, unpacked: Any):
        self._unpacked = unpacked
        self.last = b""
        self.begin()

    def begin(self) -> None:
        """Headers of another member are read."""
        self._left = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise TarTooLargeError
        self.last = self._unpacked.read(size)
        return self.last

    def seek(self, position: int) -> int:
        return self._unpacked.seek(_within(position))

    def tell(self) -> int:
        return _within(self._unpacked.tell())


def _within(position: int) -> int:
    if position > _MAX_TAR_BYTES:
        raise TarTooLargeError
    return position
