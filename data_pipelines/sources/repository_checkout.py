"""Files of a repository's checkout: a folder with `.git` in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..document import Dropped, RawFile
from .folder import readable
from .records import MAX_RECORD_BYTES
from .repository_archive import SourceFile, decoded

_GIT = ".git"


def checkouts(path: str) -> list[RawFile]:
    """Checkouts at or below a local folder, each as one raw file; those inside others do not count.

    A checkout is named by its path below the folder: "owner/name"; the folder itself by its name.
    """
    if "://" in path or not Path(path).is_dir():
        return []
    root, found = Path(path), []
    for folder, names, files in os.walk(root):
        if _GIT in names or _GIT in files:
            names.clear()
            here = Path(folder)
            name = here.relative_to(root).as_posix() if here != root else here.resolve().name
            size = sum(file.lstat().st_size for file in _files(here))
            found.append(RawFile(readable(name), folder, size))
    return found


def read_checkout(file: RawFile, dropped: Dropped) -> Iterator[SourceFile]:
    """Text files of a working tree, in order of path, but for `.git`; no link is followed."""
    root = Path(file.url)
    for number, path in enumerate(_files(root)):
        below = readable(path.relative_to(root).as_posix())
        record = f"{file.name}:{below}"
        if path.is_symlink() or not path.is_file():
            dropped.add("a link or a device", record)
        elif (size := path.stat().st_size) > MAX_RECORD_BYTES:
            dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", record)
        else:
            with RawFile(record, str(path), size).open() as opened:
                data = opened.read(size)
            if (text := decoded(data, record, dropped)) is not None:
                yield SourceFile(file.name, below, number, "", "", "", record, text)


def checkout_stamp(folder: Path) -> str:
    """What changes when a file in it does: names, sizes, and when each was written."""
    stats = (
        (readable(path.relative_to(folder).as_posix()), path.lstat()) for path in _files(folder)
    )
    return "\0".join(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}" for name, stat in stats)


def _files(root: Path) -> list[Path]:
    found = []
    for folder, names, files in os.walk(root):
        if _GIT in names:
            names.remove(_GIT)
        links = [name for name in names if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in (*files, *links) if name != _GIT]
    return sorted(found)
