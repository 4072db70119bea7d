"""`certificate.json`: what a conversion wrote, in digests that anybody can compute again."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

from llama_jax.atomic import write_atomically
from llama_jax.convert.json_values import read_json
from llama_jax.convert.stored import PIECE_BYTES

NAME = "certificate.json"
FORMAT = 1


def digest(path: Path) -> dict[str, Any]:
    """Bytes and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def tensor_entry(dtype: str, shape: tuple[int, ...], crc32: int) -> dict[str, Any]:
    """What a certificate says of one tensor; the checksum is of its bytes alone."""
    return {"dtype": dtype, "shape": list(shape), "crc32": f"{crc32:08x}"}


def write_certificate(
    folder: Path,
    *,
    known: dict[str, dict[str, Any]],
    tensors: dict[str, dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    """Writes the certificate of a folder, as its last file.

    Args:
        folder: All files below it are listed.
        known: Entries of files that were digested as they were written.
        tensors: Entries of all tensors, by their names in the Hugging Face layout.
        facts: Where they come from, and what was checked.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != NAME
    )
    files = {name: known.get(name) or digest(folder / name) for name in names}
    counts = {
        "tensors": len(tensors),
        "parameters": sum(_count(entry["shape"]) for entry in tensors.values()),
        "bytes": sum(entry["bytes"] for entry in files.values()),
    }
    certificate = {"format": FORMAT} | facts | {"counts": counts}
    certificate |= {"tensors": tensors, "files": files}
    write_atomically(folder / NAME, json.dumps(certificate, indent=1) + "\n")


def add_checks(folder: Path, checks: dict[str, Any]) -> None:
    """Adds to a folder's certificate what comparisons found."""
    certificate = read_certificate(folder)
    assert certificate is not None, "a conversion writes one"
    checks = certificate.get("checks", {}) | checks
    write_atomically(folder / NAME, json.dumps(certificate | {"checks": checks}, indent=1) + "\n")


def read_certificate(folder: Path) -> dict[str, Any] | None:
    """The certificate beside a folder's files; None where there is none.

    Raises:
        ValueError: If it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        certificate = read_json(path)
        tensors = certificate["tensors"]
        assert all("crc32" in entry for entry in tensors.values())
        assert all("sha256" in entry for entry in certificate["files"].values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path} is damaged; copy it again, or remove it to convert without its proof."
        ) from error
    return certificate


def find_changed_files(folder: Path) -> list[str]:
    """What is wrong with the files that a folder's certificate lists; empty where nothing is.

    Raises:
        ValueError: If there is no certificate, or it cannot be read.
    """
    certificate = read_certificate(folder)
    if certificate is None:
        raise ValueError(f"{folder} has no {NAME}; there is nothing to compare it with.")
    problems = []
    for name, entry in certificate["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif digest(path)["sha256"] != entry["sha256"]:
            problems.append(f"{name} changed: its SHA-256 is not the certificate's")
    return problems


def file_crc32(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            value = zlib.crc32(piece, value)
    return value


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
