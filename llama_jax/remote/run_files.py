"""The folder of a run in a bucket, held by one process; and a copy of it for those who read.

files = RunFiles(Url("s3://bucket/run"), holds=True)
files.folder                                   # works as a run's folder
files.push()                                   # before a checkpoint counts
files.close()

read_only_copy(Path("s3://bucket/run"))        # a folder; a local path is given back as it is
"""

import atexit
import contextlib
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from llama_jax.remote.lease import BEAT_SECONDS, Lease
from llama_jax.remote.mirror import Mirror, mirror_folder
from llama_jax.remote.objects import Objects, StorageError, Url, is_remote

# An object is stored as a whole, however little was added: larger files wait for a checkpoint.
_OFTEN_BYTES = 4 << 20


class RunFiles:
    """Small files of a run in a bucket, pushed there now and then, and when asked.

    Args:
        url: Of the run.
        holds: Whether this process holds the run; the others of it have copies of their own, and
            push nothing.

    Raises:
        ValueError: If another process of this machine holds it.
        InUseError: If one of another machine does, and goes on.
        StorageError: If the bucket cannot be read or written.
    """

    def __init__(self, url: Url, *, holds: bool):
        self._lease: Lease | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._mirror = Mirror(url, mirror_folder(url, "run" if holds else f"of_{os.getpid()}"))
        self.folder = self._mirror.folder
        if holds:
            self._lease = Lease(self._mirror.objects)
        self._mirror.pull()
        if holds:
            self._thread = threading.Thread(target=self._beat, name="bucket", daemon=True)
            self._thread.start()

    def push(self, *, max_bytes: float = math.inf) -> None:
        """Stores what changed, and makes sure that the run is still this process's.

        Args:
            max_bytes: Larger files are left for another time.

        Raises:
            StorageError: If the bucket cannot be written, or another process took the run.
        """
        if self._lease is not None:
            with self._lock:
                self._lease.renew()
                self._mirror.push(max_bytes=max_bytes)

    def store(self, paths: Sequence[Path]) -> None:
        """Stores files of the folder at once, whoever holds the run.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        contents = ((name, path.read_bytes()) for name, path in names.items())
        self._mirror.objects.write_all(contents)

    def refresh(self) -> None:
        """Fetches what the holder stored since; the holder itself has it.

        Raises:
            StorageError: If the bucket cannot be read.
        """
        if self._lease is None:
            self._mirror.pull()

    def close(self) -> None:
        """Stores what changed, and lets the next process in.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._lease is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        self.push()
        self._lease.release()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            # What fails now is tried again; a checkpoint counts only when it has not failed.
            with contextlib.suppress(StorageError):
                self.push(max_bytes=_OFTEN_BYTES)


def read_only_copy(run_dir: Path) -> Path:
    """A folder with the small files of a run, as they are now, until this process ends.

    Args:
        run_dir: Of the run; given back as it is unless it is in a bucket.

    Raises:
        StorageError: If the bucket cannot be read.
    """
    if not is_remote(run_dir):
        return run_dir
    folder = Path(tempfile.mkdtemp(prefix="llama_jax_run_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Mirror(Url(run_dir), folder).pull()
    return folder


def read_file(run_dir: Path, name: str) -> bytes | None:
    """Content of a small file of a run, in a folder or in a bucket; None where there is none.

    Raises:
        StorageError: If the bucket cannot be read.
    """
    if is_remote(run_dir):
        return Objects(Url(run_dir)).read(name)
    path = run_dir / name
    return path.read_bytes() if path.is_file() else None


def keep(run_dir: Path, file: Path) -> None:
    """Stores a file of `read_only_copy` with the run, if that is in a bucket.

    Raises:
        StorageError: If the bucket cannot be written.
    """
    if is_remote(run_dir):
        Objects(Url(run_dir)).write(file.name, file.read_bytes())
