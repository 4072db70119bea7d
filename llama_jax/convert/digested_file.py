"""A file written from front to back with its SHA-256, as fast as the slower of disk and hash.

Reading and judging, hashing, and writing are threads' of their own. Whole buffers go past the page
cache where the file system lets them: filling it with gigabytes that nobody reads costs more of a
core than the hash does, and pushes out what others read.
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 4 << 20
_BUFFERS = 3  # one is filled, one hashed, one written
_BLOCK_BYTES = 4096  # past the page cache, addresses in memory and file are multiples of it
_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux alone has it
BYTES_AT_ONCE = _BUFFERS * _BUFFER_BYTES


class DigestedFile:
    """Writes a file, or goes on with one, and knows the SHA-256 of all that it has written.

    Args:
        path: Of the file; what it holds counts only where `keep` finds it right.
    """

    def __init__(self, path: Path):
        path.touch()
        self._file = path.open("r+b", buffering=0)
        # Apart, for how the other is opened changes, and reads at any place must go through it.
        self._reader = path.open("rb", buffering=0)
        self._sha256, self._end = hashlib.sha256(), 0
        self._hasher, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._free: list[tuple[memoryview, tuple[Future[Any], ...]]] = [
            (_aligned_buffer(), ()) for _ in range(_BUFFERS)
        ]
        self._buffer: memoryview | None = None
        self._held = self._digested = 0  # bytes of the buffer
        self._is_cached = not _DIRECT

    @property
    def num_bytes(self) -> int:
        """Written or kept so far."""
        return self._end

    def append(self, content: memoryview | bytes) -> None:
        """Adds bytes; the caller may overwrite them at once.

        Raises:
            OSError: If the disk refused these or earlier ones.
        """
        content = memoryview(content).cast("B")
        while content.nbytes:
            if self._buffer is None:
                self._take_buffer()
            assert self._buffer is not None, "just taken"
            part = content[: _BUFFER_BYTES - self._held]
            self._buffer[self._held : self._held + part.nbytes] = part
            self._held += part.nbytes
            self._end += part.nbytes
            content = content[part.nbytes :]
            if self._held == _BUFFER_BYTES:
                self._hand_over()

    def keep(self, head: bytes, num_bytes: int, crc32: int) -> bool:
        """Goes on behind what the file already holds, if that is what it should be.

        Args:
            head: The next bytes.
            num_bytes: That follow.
            crc32: Of those.

        Returns:
            Whether the file holds these.
        """
        self._settle()
        sha256, crc, left = self._sha256.copy(), 0, num_bytes
        self._reader.seek(self._end)
        if self._reader.read(len(head)) != head:
            return False
        sha256.update(head)
        buffer = self._free[0][0]
        while left:
            count = self._reader.readinto(buffer[: min(left, _BUFFER_BYTES)])
            if not count:
                return False
            crc = zlib.crc32(buffer[:count], crc)
            sha256.update(buffer[:count])
            left -= count
        if crc != crc32:
            return False
        self._sha256 = sha256
        self._end += len(head) + num_bytes
        return True

    def finish(self) -> str:
        """Cuts the file behind its last byte; gives its SHA-256. Power may not fail yet."""
        self._settle()
        self._file.truncate(self._end)
        if self._is_cached:
            # Here, so that the disk works on one file while others are hashed.
            os.fsync(self._file.fileno())
        self.close()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Leaves the file with all that was added, as far as the disk takes it."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._settle()
            self._hasher.shutdown()
            self._writer.shutdown()
            self._reader.close()
            self._file.close()

    def _take_buffer(self) -> None:
        self._buffer, pending = self._free.pop(0)
        for future in pending:
            future.result()
        # A block that was begun is written again as a whole.
        self._held = self._digested = self._end % _BLOCK_BYTES
        if self._held:
            self._reader.seek(self._end - self._held)
            self._reader.readinto(self._buffer[: self._held])

    def _hand_over(self) -> None:
        assert self._buffer is not None, "something was added"
        content, start = self._buffer[: self._held], self._end - self._held
        pending = (
            self._hasher.submit(self._sha256.update, content[self._digested :]),
            self._writer.submit(self._write, content, start),
        )
        self._free.append((self._buffer, pending))
        self._buffer = None

    def _settle(self) -> None:
        """Waits until all that was added is hashed and written."""
        if self._buffer is not None:
            self._hand_over()
        for _, pending in self._free:
            for future in pending:
                future.result()

    def _write(self, content: memoryview, start: int) -> None:
        self._set_direct(content.nbytes == _BUFFER_BYTES)
        while content.nbytes:  # a system call may write less than it is given
            try:
                count = os.pwrite(self._file.fileno(), content, start)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._set_direct(False):
                    raise
                self._is_cached = True
                continue
            content, start = content[count:], start + count

    def _set_direct(self, direct: bool) -> bool:
        """Whether that changed how the file is written; file systems may refuse."""
        flags = fcntl.fcntl(self._file.fileno(), fcntl.F_GETFL)
        wanted = flags | _DIRECT if direct else flags & ~_DIRECT
        if wanted == flags:
            return False
        try:
            fcntl.fcntl(self._file.fileno(), fcntl.F_SETFL, wanted)
        except OSError:
            self._is_cached = True
            return False
        return True


def _aligned_buffer() -> memoryview:
    return memoryview(mmap.mmap(-1, _BUFFER_BYTES))
