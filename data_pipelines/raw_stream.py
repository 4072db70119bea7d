"""Bytes of a raw file, read again where reading fails: a lost connection is no damaged file."""

import contextlib
import errno
import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

_PAUSES_SECONDS = (0.5, 2.0, 8.0, 30.0)
# What another attempt does not change.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_BUFFER = 1 << 17
_Result = TypeVar("_Result")


class UnreadableError(Exception):
    """A raw file could not be read to its end, whole or damaged as it may be.

    Not an `OSError`: decoders raise those at damage, of which the rest of a file is left out.
    """


def open_raw(url: str, open_stream: Callable[[], Any]) -> io.BufferedReader:
    """Bytes of a file, seekable.

    Args:
        url: Of the file, for the message.
        open_stream: Opens it, at its beginning; called again where reading failed.

    Raises:
        UnreadableError: If it cannot be opened; reading raises it too, once all attempts at a
            piece have failed.
    """
    return io.BufferedReader(_Persistent(url, open_stream), _BUFFER)


class _Persistent(io.RawIOBase):
    """Reads a stream; opens it anew, at the same place, where that fails."""

    def __init__(self, url: str, open_stream: Callable[[], Any]):
        self._url, self._open_stream = url, open_stream
        self._stream: Any = None
        self._at = 0
        self._persist(lambda stream: None)

    def readinto(self, buffer: Any) -> int:
        count = self._persist(lambda stream: stream.readinto(buffer))
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        stream = self._persist(lambda stream: stream)
        try:
            self._at = stream.seek(offset, whence)
        except (ValueError, OverflowError) as error:
            # A place that a damaged file names; file systems differ in what they say to it.
            raise OSError(errno.EINVAL, f"no place in the file: {offset}") from error
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._drop()
        super().close()

    def _persist(self, call: Callable[[Any], _Result]) -> _Result:
        for pause in (*_PAUSES_SECONDS, None):
            try:
                if self._stream is None:
                    self._stream = self._open_stream()
                    if self._at:
                        self._stream.seek(self._at)
                return call(self._stream)
            # Nothing is decoded here, and each file system has errors of its own.
            except Exception as error:
                self._drop()
                if pause is None or isinstance(error, _FINAL):
                    raise UnreadableError(
                        f"{self._url} cannot be read ({type(error).__name__}: {error}). What is "
                        "done is kept: run the same command again once it can, or take the file "
                        "away."
                    ) from error
                time.sleep(pause)
        raise AssertionError

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        # One whose connection is lost may fail at this too.
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.close()
