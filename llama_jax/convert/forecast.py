"""What a conversion will take, before it begins."""

import contextlib
import dataclasses
import math
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from llama_jax.config import ModelConfig
from llama_jax.convert import mapping
from llama_jax.convert.digested_file import BYTES_AT_ONCE, DigestedFile
from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES, refuse_not_finite

THREADS = 3
_PROBE_BYTES = 64 << 20
# Python with the libraries that a conversion imports, measured on Linux.
BASE_BYTES = 400_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a conversion reads, writes and needs.

    Attributes:
        num_params: Parameters written.
        bytes_read: Of tensors.
        bytes_written: Of tensors.
        peak_memory_bytes: Resident, Python and its libraries included.
        seconds: At the rate at which this machine digests and writes a small file now.
    """

    num_params: int
    bytes_read: int
    bytes_written: int
    peak_memory_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.num_params:,} parameters: {self.bytes_read / 1e9:,.2f} GB read, "
            f"{self.bytes_written / 1e9:,.2f} GB written, at most "
            f"{self.peak_memory_bytes / 1e9:.2f} GB of memory, about {self.seconds:,.0f} s"
        )


def forecast(
    model: ModelConfig,
    read_bytes: int,
    written_bytes: int,
    out_dir: Path,
    *,
    bytes_at_once: int = 0,
) -> Forecast:
    """Forecasts a conversion of a model into a folder.

    Args:
        model: Its shape, as it is written.
        read_bytes: Of the tensors read.
        written_bytes: Of the tensors written.
        out_dir: Where they go; only its disk matters.
        bytes_at_once: What threads hold beside a few pieces: tensors, where the layout changes.
    """
    buffers = BYTES_AT_ONCE + 4 * PIECE_BYTES
    return Forecast(
        num_params=sum(math.prod(tensor.shape) for tensor in mapping.tensors_of(model)),
        bytes_read=read_bytes,
        bytes_written=written_bytes,
        peak_memory_bytes=BASE_BYTES + bytes_at_once + THREADS * buffers,
        seconds=written_bytes / probe_bytes_per_second(out_dir),
    )


def model_bytes(model: ModelConfig, dtype_of: Callable[[mapping.Tensor], str]) -> int:
    """Bytes of all tensors of a model."""
    return sum(
        math.prod(tensor.shape) * ITEM_BYTES[dtype_of(tensor)]
        for tensor in mapping.tensors_of(model)
    )


def bytes_at_once(model: ModelConfig, item_bytes: int) -> int:
    """What the threads hold at most: the largest tensors, and copies of those whose axes move.

    Args:
        model: Its shape.
        item_bytes: Of a value.
    """
    costs = sorted(
        math.prod(tensor.shape) * item_bytes * (1 if "V" in tensor.pair.our_axes else 2)
        for tensor in mapping.tensors_of(model)
    )
    return sum(costs[-THREADS:])


def probe_bytes_per_second(out_dir: Path) -> float:
    """How fast a small file is judged, digested, written and flushed beside `out_dir`."""
    parents = (out_dir.absolute(), *out_dir.absolute().parents)
    there = next(path for path in parents if path.is_dir())
    piece, crc = memoryview(bytes(PIECE_BYTES)), 0
    with tempfile.NamedTemporaryFile(dir=there) as file:
        started = time.perf_counter()
        with contextlib.closing(DigestedFile(Path(file.name))) as probe:
            for _ in range(_PROBE_BYTES // PIECE_BYTES):
                refuse_not_finite(piece, "bfloat16", "probe")
                crc = zlib.crc32(piece, crc)
                probe.append(piece)
            probe.finish()
        return _PROBE_BYTES / (time.perf_counter() - started)
