"""Files that are whole or absent, whatever moment the power fails."""

import os
import shutil
from pathlib import Path


def flush(path: Path) -> None:
    """Asks the disk to hold what was written to a file or folder, so that power may fail."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    flush(path.parent)


def link(existing: Path, new: Path) -> None:
    """Gives a finished file a second name; copies it where the file system has no links."""
    try:
        os.link(existing, new)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(existing, new)
