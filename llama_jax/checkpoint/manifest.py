"""The list of a checkpoint's files with sizes and checksums; a checkpoint is what has one.

Checksums guard against accidents (a flipped bit, a cut file), not against forgery, so the cheapest
one of the standard library is used: CRC-32 as in zlib.
"""

import concurrent.futures
import dataclasses
import json
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llama_jax.atomic import flush, write_atomically

NAME = "manifest.json"
FORMAT = 1
_CHUNK_BYTES = 4 << 20
_THREADS = 4
PATIENCE_SECONDS = 1200.0


class CheckpointError(OSError):
    """A checkpoint could not be written, or what is on disk is not the checkpoint that was."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a checkpoint.

    Attributes:
        size: Bytes.
        crc32: Of the content.
    """

    size: int
    crc32: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All that a complete checkpoint consists of.

    Attributes:
        step: Updates done.
        arrays: Dtype and shape of each array, as in `float32[8,64]`, by its dotted name.
        files: Entry of each file, by its path relative to the checkpoint.
    """

    step: int
    arrays: dict[str, str]
    files: dict[str, FileEntry]


def crc32(path: Path) -> int:
    """Checksum of a file, read in pieces."""
    value = 0
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            value = zlib.crc32(view[:count], value)
    return value


def scan(folder: Path, paths: Iterable[Path]) -> dict[str, FileEntry]:
    """Entries of files below a folder, hashed in threads and flushed to the disk."""
    paths = list(paths)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        entries = pool.map(_flush_and_enter, paths)
        return {
            path.relative_to(folder).as_posix(): entry
            for path, entry in zip(paths, entries, strict=True)
        }


def scan_together(
    folder: Path, *, part: int, parts: int, timeout_seconds: float = PATIENCE_SECONDS
) -> dict[str, FileEntry] | None:
    """Entries of a folder's files, of which each process hashes its share.

    The folders inside must be final; the files directly in `folder` are the first process's own.
    Shares travel through `folder` itself, which all see. A file server may list a folder to one
    process as it was a while ago: what only others see, the first process hashes in the end.

    Returns:
        All entries in process 0, which collects them; None in the others.

    Raises:
        CheckpointError: If another process does not answer in time, or a file that was seen is not
            there.
    """
    inner = _inner_files(folder)
    mine = [folder / name for name in inner[part::parts]]
    if part:
        share = {"files": entries_to_json(scan(folder, mine)), "seen": inner}
        write_atomically(folder / f"share_{part}.json", json.dumps(share))
        return None
    mine += [path for path in folder.iterdir() if path.is_file() and path.name[:6] != "share_"]
    files, seen = scan(folder, mine), set(inner)
    deadline = time.monotonic() + timeout_seconds
    for other in range(1, parts):
        share = folder / f"share_{other}.json"
        while not share.is_file():
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"process {other} gave no checksums within {timeout_seconds:.0f} s"
                )
            time.sleep(0.05)
        content = json.loads(share.read_text(encoding="utf-8"))
        files |= entries_from_json(content["files"])
        seen.update(content["seen"])
        share.unlink()
    seen.update(_inner_files(folder))
    files |= scan(folder, [folder / name for name in sorted(seen - files.keys())])
    return files


def _inner_files(folder: Path) -> list[str]:
    """Names of the files of the folders inside, sorted."""
    paths = (path for path in folder.rglob("*") if path.parent != folder and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def wait_until_gone(folder: Path, *, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Waits until another process has renamed or deleted a folder.

    Raises:
        CheckpointError: If it does not in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while folder.exists():
        if time.monotonic() > deadline:
            raise CheckpointError(f"{folder.name} was not completed within {timeout_seconds:.0f} s")
        time.sleep(0.05)


def _flush_and_enter(path: Path) -> FileEntry:
    try:
        flush(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} was written and is not there") from None
    return FileEntry(size=path.stat().st_size, crc32=crc32(path))


def write(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, the last file of a checkpoint."""
    write_atomically(folder / NAME, to_json(manifest))


def to_json(manifest: Manifest) -> str:
    """As JSON that `from_json` reads."""
    files = {name: [entry.size, f"{entry.crc32:08x}"] for name, entry in manifest.files.items()}
    data = {"format": FORMAT, "step": manifest.step, "arrays": manifest.arrays, "files": files}
    return json.dumps(data, indent=1) + "\n"


def read(folder: Path) -> Manifest:
    """Reads a checkpoint's manifest.

    Raises:
        CheckpointError: If it cannot be read.
    """
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{NAME} cannot be read ({_reason(error)})") from error
    return from_json(text)


def from_json(text: str) -> Manifest:
    """Reads what `to_json` gives.

    Raises:
        CheckpointError: If it is something else.
    """
    try:
        data = json.loads(text)
        return Manifest(
            step=int(data["step"]),
            arrays={name: str(array) for name, array in data["arrays"].items()},
            files={
                name: FileEntry(size=int(size), crc32=int(checksum, 16))
                for name, (size, checksum) in data["files"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{NAME} cannot be read ({_reason(error)})") from error


def entries_to_json(entries: dict[str, FileEntry]) -> str:
    """As JSON that `entries_from_json` reads."""
    return json.dumps({name: dataclasses.astuple(entry) for name, entry in entries.items()})


def entries_from_json(text: str) -> dict[str, FileEntry]:
    """Reads what `entries_to_json` gives."""
    pairs = json.loads(text).items()
    return {name: FileEntry(size=size, crc32=crc) for name, (size, crc) in pairs}


def _reason(error: Exception) -> str:
    return f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__


def find_damage(
    folder: Path, manifest: Manifest, *, deep: bool, part: int = 0, parts: int = 1
) -> list[str]:
    """What is wrong with the files of a checkpoint; empty where they are as they were written.

    Args:
        folder: The checkpoint.
        manifest: Its manifest.
        deep: Whether to read every byte and compare checksums; sizes are always compared.
        part: Which share of the checksums to compare, where several processes divide them.
        parts: Number of shares.
    """
    problems, whole = [], []
    for name, entry in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if size != entry.size:
            problems.append(f"{name} has {size:,} bytes, not {entry.size:,}: it was cut or changed")
        else:
            whole.append(name)
    if deep:
        problems += _find_flips(folder, manifest, sorted(whole)[part::parts])
    return problems


def _find_flips(folder: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    def check(name: str) -> str | None:
        wanted = manifest.files[name].crc32
        try:
            found = crc32(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found != wanted:
            return f"{name} has CRC-32 {found:08x}, not {wanted:08x}: its content changed"
        return None

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return [problem for problem in pool.map(check, names) if problem]


def array_table(arrays: dict[str, Any]) -> dict[str, str]:
    """Dtype and shape of each array, as the manifest lists them."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for name, leaf in arrays.items()
    }
