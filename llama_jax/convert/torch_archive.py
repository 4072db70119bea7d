"""A file as `torch.save` writes it, a few rows after another, so that memory never holds a tensor.

It is a ZIP archive of stored records: a pickle that names tensors and the records of their bytes,
then those. PyTorch's own writer wants all of them at once; this one does not need PyTorch.

Sources: PyTorch's "Serialization semantics" (https://docs.pytorch.org/docs/stable/notes/
serialization.html, "Serialized file format"), of which records begin at multiples of 64 bytes; the
ZIP specification (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), 4.3 to 4.5.
"""

import math
import pickle
import pickletools
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.convert.digested_file import DigestedFile
from llama_jax.convert.stored import ITEM_BYTES

_STORAGES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage", "float16": "HalfStorage"}
_ALIGNMENT = 64
_LIMIT = 0xFFFFFFFF  # larger sizes and offsets stand in a field of their own
_ZIP64, _PADDING = 1, 0x4246  # kinds of such fields; the second is PyTorch's
_SIZES_BEHIND = 8  # a flag of records
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

    @property
    def strides(self) -> tuple[int, ...]:
        """In values, row-major."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))


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
    """

    def __init__(self, path: Path, parts: list[Part]):
        self._stem, self._parts, self._next = path.stem.encode(), parts, 0
        self._records: list[_Record] = []
        self._begin, self._first, self._crc = 0, 0, 0  # of the record that was begun
        self._file = DigestedFile(path)
        self._put(b"data.pkl", _pickled(parts))
        self._put(b"byteorder", b"little")

    @property
    def last_crc32(self) -> int:
        """Of the tensor that was written or kept last."""
        return self._records[-1].crc32

    def keep(self, crc32: int) -> bool:
        """Keeps the next tensor if the file has it already, with that checksum."""
        name, size = b"data/%d" % self._next, self._parts[self._next].num_bytes
        begin, head = self._file.num_bytes, self._head(name, size)
        if not self._file.keep(head, size, crc32):
            return False
        self._conclude(name, begin, size, crc32)
        return True

    def begin(self) -> None:
        """Begins the next tensor."""
        self._begin, self._crc = self._file.num_bytes, 0
        self._file.append(self._head(b"data/%d" % self._next, self._parts[self._next].num_bytes))
        self._first = self._file.num_bytes

    def add(self, values: memoryview) -> None:
        """Writes what follows of the tensor that was begun."""
        self._crc = zlib.crc32(values, self._crc)
        self._file.append(values)

    def end(self) -> None:
        """Ends the tensor that was begun."""
        part, size = self._parts[self._next], self._file.num_bytes - self._first
        assert size == part.num_bytes, f"{size} bytes of {part}"
        self._conclude(b"data/%d" % self._next, self._begin, size, self._crc)

    def finish(self) -> dict[str, Any]:
        """Writes what ends the file, to the disk; returns its bytes and SHA-256."""
        assert self._next == len(self._parts), "all tensors are there"
        self._put(b"version", b"3\n")
        directory = b"".join(map(_directory_entry, self._records))
        end = _last(len(self._records), len(directory), self._file.num_bytes)
        self._file.append(directory + end)
        sha256 = self._file.finish()
        return {"bytes": self._file.num_bytes, "sha256": sha256}

    def close(self) -> None:
        """Leaves the file as far as it is."""
        self._file.close()

    def _put(self, name: bytes, content: bytes) -> None:
        begin = self._file.num_bytes
        self._file.append(self._head(name, len(content)) + content)
        self._conclude(name, begin, len(content), zlib.crc32(content))

    def _conclude(self, name: bytes, begin: int, size: int, crc32: int) -> None:
        """Writes what stands behind a record, which the file may have already."""
        sizes = struct.pack("<QQ" if size >= _LIMIT else "<II", size, size)
        self._file.append(struct.pack("<II", 0x08074B50, crc32) + sizes)
        self._records.append(_Record(self._full(name), size, crc32, begin))
        self._next += name.startswith(b"data/")

    def _full(self, name: bytes) -> bytes:
        return self._stem + b"/" + name

    def _head(self, name: bytes, size: int) -> bytes:
        """What stands before a record; its sizes and checksum, not yet known, stand behind it."""
        full = self._full(name)
        extra = _large([0, 0]) if size >= _LIMIT else b""
        begin = self._file.num_bytes + 30 + len(full) + len(extra) + 4
        padding = -begin % _ALIGNMENT
        extra += struct.pack("<HH", _PADDING, padding) + bytes(padding)
        shown = _LIMIT if size >= _LIMIT else 0
        numbers = (0x04034B50, 45, _SIZES_BEHIND, 0, 0, _DATE, 0, shown, shown)
        return struct.pack("<IHHHHHIIIHH", *numbers, len(full), len(extra)) + full + extra


def _large(numbers: list[int]) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", _ZIP64, 8 * len(numbers), *numbers)


def _directory_entry(record: _Record) -> bytes:
    large = [record.size] * 2 if record.size >= _LIMIT else []
    large += [record.offset] if record.offset >= _LIMIT else []
    extra = _large(large) if large else b""
    size, offset = min(record.size, _LIMIT), min(record.offset, _LIMIT)
    kind = (0x02014B50, 45, 45, _SIZES_BEHIND, 0, 0, _DATE)
    numbers = (*kind, record.crc32, size, size, len(record.name))
    rest = (len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<IHHHHHHIIIHHHHHII", *numbers, *rest) + record.name + extra


def _last(count: int, size: int, offset: int) -> bytes:
    """What ends an archive: where its directory is, first with room for large numbers."""
    large = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, offset)
    large += struct.pack("<IIQI", 0x07064B50, 0, offset + size, 1)
    shown = min(count, 0xFFFF), min(size, _LIMIT), min(offset, _LIMIT)
    return large + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, shown[0], *shown, 0)


def _pickled(parts: list[Part]) -> bytes:
    """A dictionary of tensors whose bytes are elsewhere, in the opcodes of protocol 2.

    Python's own pickler names a function only if it can import it, here from PyTorch.
    """
    items = [
        _of(part.name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + _of("storage")
        + f"ctorch\n{_STORAGES[part.dtype]}\n".encode()
        + b"".join(map(_of, (str(number), "cpu", math.prod(part.shape))))
        + b"tQ"
        + b"".join(map(_of, (0, part.shape, part.strides, False)))
        + b"ccollections\nOrderedDict\n)RtR"
        for number, part in enumerate(parts)
    ]
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _of(value: object) -> bytes:
    """A plain value's opcodes, without those that begin and end a pickle, or name it for later."""
    return pickletools.optimize(pickle.dumps(value, protocol=2))[2:-1]
