"""A folder on this machine whose files are objects of a bucket, too.

    mirror = Mirror(Url("s3://bucket/run"), folder)
    mirror.pull()                                  # the folder is as the bucket says
    mirror.push()                                  # the bucket is as the folder says

A run keeps its small files like this: programs append to files, which objects cannot do. The
checkpoints stay in the bucket; the folder has a file of that name which says where they are.
"""

import math
import shutil
from pathlib import Path

from llama_jax.atomic import write_atomically
from llama_jax.cache import cache_folder
from llama_jax.remote.objects import Objects, Url

CHECKPOINTS = "checkpoints"
LEASE = "lease.json"
_SIGN = "config.json"
_OURS_ALONE = (CHECKPOINTS, LEASE, "wandb")


class Mirror:
    """Small files of a run in a bucket, and their copies here.

    Args:
        url: Of the run.
        folder: Here; made if it is missing.
    """

    def __init__(self, url: Url, folder: Path):
        self.url, self.folder = url, folder
        self.objects = Objects(url)
        self._stored: dict[str, tuple[int, int]] = {}

    def pull(self) -> None:
        """Makes the folder as the bucket is.

        A file here that goes on where the object ends is kept: a process that was killed on this
        machine wrote it, and could not push it any more. The same goes for other files that the
        bucket lacks. Where the bucket holds no run, the folder is cleared.

        Raises:
            StorageError: If the bucket cannot be read.
        """
        names = self.objects.names(skip=f"{CHECKPOINTS}/")
        if _SIGN not in names:
            shutil.rmtree(self.folder, ignore_errors=True)
            names = []
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in names if name.partition("/")[0] not in _OURS_ALONE]
        for name, content in zip(names, self.objects.read_all(names), strict=True):
            path = self.folder / name
            if content is None or (path.is_file() and path.read_bytes().startswith(content)):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            self._stored[name] = _signature(path)
        write_atomically(self.folder / CHECKPOINTS, f"{self.url / CHECKPOINTS}\n")

    def push(self, *, max_bytes: float = math.inf) -> None:
        """Stores the files that changed since they were stored.

        Args:
            max_bytes: Larger ones are left for another time.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        changed = {
            name: signature
            for name, path in self._files()
            if (signature := _signature(path)) != self._stored.get(name)
            and signature[1] <= max_bytes
        }
        self.objects.write_all([(name, (self.folder / name).read_bytes()) for name in changed])
        self._stored |= changed

    def _files(self) -> list[tuple[str, Path]]:
        paths = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*")}
        return [
            (name, path)
            for name, path in sorted(paths.items())
            if name.partition("/")[0] not in _OURS_ALONE
            and not name.endswith(".partial")
            and path.is_file()
            and (path.stat().st_size or name in self._stored)
        ]


def mirror_folder(url: Url, part: str) -> Path:
    """Where the files of a run in a bucket are kept here: below `XDG_CACHE_HOME`, or `~/.cache`.

    Args:
        url: Of the run.
        part: Who keeps them; each has a folder of its own.
    """
    return cache_folder("runs") / url.key / part


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
