"""Tensors that lie in files, copied in pieces and judged on the way."""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from llama_jax.convert.digested_file import DigestedFile

PIECE_BYTES = 1 << 20  # about a core's cache: a piece is read once from memory, then judged there
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# The bits of a float's exponent; a value is not finite where all are set.
_EXPONENT = {
    "float32": (np.uint32, 0x7F800000),
    "bfloat16": (np.uint16, 0x7F80),
    "float16": (np.uint16, 0x7C00),
}


class Stored(NamedTuple):
    """One tensor in a file, row-major and little-endian.

    Attributes:
        name: In that file.
        dtype: "float32", "bfloat16" or "float16".
        shape: As stored.
        path: The file.
        offset: Of the first byte.
        num_bytes: Of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int


class Written(NamedTuple):
    """What a file has after a copy: its bytes and digests, and the CRC-32 of the tensor alone."""

    num_bytes: int
    crc32: int
    sha256: str
    tensor_crc32: int


def pieces(stored: Stored, piece_bytes: int = PIECE_BYTES) -> Iterator[memoryview]:
    """The bytes of a tensor, a piece at a time; each is overwritten by the next.

    Args:
        stored: Where it lies.
        piece_bytes: Of all but the last.

    Raises:
        ValueError: If the file ends before the tensor does, or a value is not finite.
    """
    buffer = memoryview(bytearray(min(piece_bytes, stored.num_bytes)))
    left = stored.num_bytes
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.offset)
        while left:
            piece = buffer[: min(left, piece_bytes)]
            if not fill(file, piece):
                raise ValueError(
                    f"{stored.path}: the file ends inside {stored.name}; it was cut short, copy "
                    "or download it again."
                )
            refuse_not_finite(piece, stored.dtype, f"{stored.path}: {stored.name}")
            yield piece
            left -= len(piece)


def array_pieces(array: np.ndarray, dtype: str, name: str) -> Iterator[memoryview]:
    """The bytes of an array in another dtype (rounded to nearest even), a piece at a time.

    Raises:
        ValueError: If a value is not finite, or is too large for the dtype.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    step = PIECE_BYTES // 4
    for start in range(0, flat.size, step):
        part = flat[start : start + step].astype(numpy_dtype(dtype), copy=False)
        piece = part.view(np.uint8).data
        refuse_not_finite(piece, dtype, name)
        yield piece


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name; it knows bfloat16 from ml_dtypes alone."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def fill(file: BinaryIO, piece: memoryview) -> bool:
    """Reads as many bytes as the piece has; False where the file ends before."""
    start = 0
    while start < len(piece):
        count = file.readinto(piece[start:])  # pyright: ignore[reportAttributeAccessIssue]
        if not count:
            return False
        start += count
    return True


def refuse_not_finite(piece: memoryview, dtype: str, where: str) -> None:
    """Raises ValueError if a value of the piece is NaN or infinite."""
    kind, exponent = _EXPONENT[dtype]
    bits = np.frombuffer(piece, kind)
    if np.bitwise_and(bits, exponent).max(initial=0) == exponent:
        raise ValueError(
            f"{where} has a value that is NaN or infinite; such a model computes nothing: take "
            "another checkpoint, or another copy of the file."
        )


def write_pieces(content: Iterator[memoryview], target: Path, *, zero_bytes: int = 0) -> Written:
    """Writes a tensor into a file of its own, followed by zeros.

    Args:
        content: The tensor's bytes.
        target: File to write.
        zero_bytes: How many zeros follow.
    """
    crc = 0
    with contextlib.closing(DigestedFile(target)) as file:
        for piece in content:
            file.append(piece)
            crc = zlib.crc32(piece, crc)
        tensor_crc = crc
        for start in range(0, zero_bytes, PIECE_BYTES):
            zeros = bytes(min(PIECE_BYTES, zero_bytes - start))
            file.append(zeros)
            crc = zlib.crc32(zeros, crc)
        sha256 = file.finish()
    return Written(file.num_bytes, crc, sha256, tensor_crc)
