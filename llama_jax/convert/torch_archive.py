"""A file as `torch.save` writes it, tensor after tensor, so that memory holds one of them.

It is a ZIP archive of stored records: a pickle that names tensors and the records of their bytes,
then those. PyTorch's own writer wants all of them at once.

Sources: PyTorch's "Serialization semantics" (https://docs.pytorch.org/docs/stable/notes/
serialization.html, "Serialized file format"), of which records begin at multiples of 64 bytes; the
ZIP specification (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), 4.3 to 4.5.
"""

import collections
import hashlib
import io
import math
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES, fill

_STORAGES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage", "float16": "HalfStorage"}
_ALIGNMENT = 64
_LIMIT = 0xFFFFFFFF  # larger sizes and offsets stand in a field of their own
_ZIP64, _PADDING = 1, 0x4246  # kinds of such fields; the second is PyTorch's
_DATE = 0x21  # 1980-01-01: the same tensors are the same bytes


class Part(NamedTuple):
    """One tensor of a file.

    Attributes:
        name: Of the tensor.
        dtype: "float32", "bfloat16" or "float16".
        shape: Of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its values."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class _Record(NamedTuple):
    name: bytes
    size: int
    crc32: int
    offset: int


class TorchArchive:
    """Writes a file that `torch.load` reads.

    Args:
        path: To write; it may hold what an earlier start wrote of the same tensors.
        parts: All tensors, in the order in which they are written.
        torch: PyTorch, whose names the pickle mentions.
    """

    def __init__(self, path: Path, parts: list[Part], torch: Any):
        self._stem, self._parts, self._next = path.stem.encode(), parts, 0
        self._records: list[_Record] = []
        self._sha256, self._end = hashlib.sha256(), 0
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._put(b"data.pkl", memoryview(_pickled(parts, torch)))
        self._put(b"byteorder", memoryview(b"little"))

    def keep(self, crc32: int) -> bool:
        """Keeps the next tensor if the file has it already, with that checksum."""
        name, left = b"data/%d" % self._next, self._parts[self._next].num_bytes
        head, crc = self._head(name, left, crc32), 0
        self._file.seek(self._end)
        if self._file.read(len(head)) != head:
            return False
        sha256 = self._sha256.copy()
        sha256.update(head)
        piece = memoryview(bytearray(min(PIECE_BYTES, left)))
        while left and fill(self._file, now := piece[: min(left, PIECE_BYTES)]):
            crc = zlib.crc32(now, crc)
            sha256.update(now)
            left -= len(now)
        if left or crc != crc32:
            return False
        self._sha256 = sha256
        self._note(name, len(head), self._parts[self._next].num_bytes, crc32)
        self._next += 1
        return True

    def add(self, values: memoryview) -> int:
        """Writes the bytes of the next tensor; returns their CRC-32."""
        part = self._parts[self._next]
        assert values.nbytes == part.num_bytes, f"{values.nbytes} bytes of {part}"
        crc = self._put(b"data/%d" % self._next, values)
        self._next += 1
        return crc

    def finish(self) -> dict[str, Any]:
        """Writes what ends the file, to the disk; returns its bytes and SHA-256."""
        assert self._next == len(self._parts), "all tensors are there"
        self._put(b"version", memoryview(b"3\n"))
        directory = b"".join(map(_directory_entry, self._records))
        self._write(memoryview(directory + _last(len(self._records), len(directory), self._end)))
        self._file.truncate(self._end)
        os.fsync(self._file.fileno())
        self.close()
        return {"bytes": self._end, "sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        """Leaves the file as far as it is."""
        self._file.close()

    def _put(self, name: bytes, content: memoryview) -> int:
        crc = zlib.crc32(content)
        head = self._head(name, content.nbytes, crc)
        self._file.seek(self._end)
        start = self._end
        self._write(memoryview(head))
        self._write(content)
        self._end = start
        self._note(name, len(head), content.nbytes, crc)
        return crc

    def _write(self, content: memoryview) -> None:
        content = content.cast("B")
        self._sha256.update(content)
        self._end += content.nbytes
        while content.nbytes:  # a system call may write less than it is given
            content = content[self._file.write(content) :]

    def _note(self, name: bytes, head: int, size: int, crc32: int) -> None:
        self._records.append(_Record(self._full(name), size, crc32, self._end))
        self._end += head + size

    def _full(self, name: bytes) -> bytes:
        return self._stem + b"/" + name

    def _head(self, name: bytes, size: int, crc32: int) -> bytes:
        """What stands before a record: its name, size and checksum, and bytes that align it."""
        full = self._full(name)
        extra = _large([size, size]) if size >= _LIMIT else b""
        begin = self._end + 30 + len(full) + len(extra) + 4
        padding = -begin % _ALIGNMENT
        extra += struct.pack("<HH", _PADDING, padding) + bytes(padding)
        shown = min(size, _LIMIT)
        numbers = (0x04034B50, 45, 0, 0, 0, _DATE, crc32, shown, shown, len(full), len(extra))
        return struct.pack("<IHHHHHIIIHH", *numbers) + full + extra


def _large(numbers: list[int]) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", _ZIP64, 8 * len(numbers), *numbers)


def _directory_entry(record: _Record) -> bytes:
    large = [record.size] * 2 if record.size >= _LIMIT else []
    large += [record.offset] if record.offset >= _LIMIT else []
    extra = _large(large) if large else b""
    size, offset = min(record.size, _LIMIT), min(record.offset, _LIMIT)
    numbers = (0x02014B50, 45, 45, 0, 0, 0, _DATE, record.crc32, size, size, len(record.name))
    rest = (len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<IHHHHHHIIIHHHHHII", *numbers, *rest) + record.name + extra


def _last(count: int, size: int, offset: int) -> bytes:
    """What ends an archive: where its directory is, first with room for large numbers."""
    large = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, offset)
    large += struct.pack("<IIQI", 0x07064B50, 0, offset + size, 1)
    shown = min(count, 0xFFFF), min(size, _LIMIT), min(offset, _LIMIT)
    return large + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, shown[0], *shown, 0)


class _Storage(NamedTuple):
    """Stands in the pickle for the bytes of a tensor."""

    dtype: str
    key: str
    num_values: int


def _pickled(parts: list[Part], torch: Any) -> bytes:
    """A dictionary of tensors whose bytes are elsewhere, as PyTorch pickles it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, _Storage):
                return None
            return "storage", getattr(torch, _STORAGES[obj.dtype]), obj.key, "cpu", obj.num_values

        def reducer_override(self, obj: Any) -> Any:
            if not isinstance(obj, _Tensor):
                return NotImplemented
            shape, hooks = obj.part.shape, collections.OrderedDict()
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            storage = _Storage(obj.part.dtype, str(obj.number), math.prod(shape))
            arguments = (storage, 0, shape, strides, False, hooks)
            return torch._utils._rebuild_tensor_v2, arguments

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(
        {part.name: _Tensor(number, part) for number, part in enumerate(parts)}
    )
    return stream.getvalue()


class _Tensor:
    """Stands in the pickle for a tensor."""

    def __init__(self, number: int, part: Part):
        self.number, self.part = number, part
