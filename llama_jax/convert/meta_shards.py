"""The files of Meta's model-parallel ranks, read a few rows at a time."""

import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES, Stored, numpy_dtype, pieces

_HEADER_BYTES = 30  # of a ZIP's record, before its name


def require_torch() -> Any:
    """PyTorch.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f".pth files are PyTorch's ({error}): pip install 'llama-jax[torch]'."
        ) from error
    return torch


class Shards:
    """The files of all model-parallel ranks, of which PyTorch reads no value.

    It tells what each file holds and where (source: its "Serialization semantics", "Layout
    control"); values are read from there.

    Args:
        folder: Of the files.

    Raises:
        ValueError: If a file is missing, or holds other things than named tensors.
    """

    def __init__(self, folder: Path):
        self._torch = require_torch()
        self.paths = sorted(folder.glob("consolidated.*.pth"))
        if not self.paths:
            other = "; of Hugging Face's, use `llama-jax convert from-hf`"
            raise ValueError(
                f"META_DIR={str(folder)!r} has no consolidated.NN.pth; name a folder as Meta "
                f"releases them{other if (folder / 'config.json').is_file() else ''}."
            )
        expected = [f"consolidated.{rank:02d}.pth" for rank in range(len(self.paths))]
        if missing := sorted(set(expected) - {path.name for path in self.paths}):
            raise ValueError(f"{folder / missing[0]} is missing; copy or download it again.")
        self._tensors = [self._find(path) for path in self.paths]

    def names(self) -> set[str]:
        """Of the tensors, which all ranks must have.

        Raises:
            ValueError: If a rank lacks one.
        """
        first = self._tensors[0].keys()
        for path, tensors in zip(self.paths, self._tensors, strict=True):
            if differs := sorted(tensors.keys() ^ first):
                raise ValueError(f"{path}: {differs[0]} is not in all ranks' files.")
        return set(first)

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """Shape of each rank's slice."""
        return [tensors[name].shape for tensors in self._tensors]

    def dtype(self, name: str) -> str:
        """Of a tensor.

        Raises:
            ValueError: If it is none of a model's, or the slices of it differ.
        """
        kinds = [tensors[name].dtype for tensors in self._tensors]
        for path, kind in zip(self.paths, kinds, strict=True):
            if kind not in ITEM_BYTES:
                raise ValueError(f"{path}: {name} is {kind}; dequantize it.")
            if kind != kinds[0]:
                raise ValueError(
                    f"{path}: {name} is {kind}, in {self.paths[0].name} it is {kinds[0]}; a tensor "
                    "has one dtype: save all ranks again in one, or take another copy."
                )
        return kinds[0]

    def read(self, name: str, axis: int | None) -> np.ndarray:
        """The whole tensor, from all ranks.

        Raises:
            ValueError: If ranks that must hold the same do not.
        """
        shapes = self.shapes(name)
        rows = shapes[0][0] if axis != 0 else sum(shape[0] for shape in shapes)
        columns = shapes[0][1:] if axis != 1 else (sum(shape[1] for shape in shapes),)
        whole, end = np.empty((rows, *columns), numpy_dtype(self.dtype(name))), 0
        for block in self.blocks(name, axis):
            whole[end : end + len(block)] = block
            end += len(block)
        return whole

    def blocks(self, name: str, axis: int | None, multiple: int = 1) -> Iterator[np.ndarray]:
        """The whole tensor from all ranks, some rows at a time; each overwrites the one before.

        Args:
            name: Of the tensor.
            axis: Of which each rank holds a slice; None where all hold the whole.
            multiple: Of which the rows of a block are one, and those of a rank too.

        Raises:
            ValueError: If a file ends too early, or ranks that must hold the same do not.
        """
        parts = [tensors[name] for tensors in self._tensors]
        kind, columns = numpy_dtype(self.dtype(name)), parts[0].shape[1:]
        row_bytes = math.prod(columns) * kind.itemsize
        step = max(PIECE_BYTES // (row_bytes * multiple), 1) * multiple * row_bytes

        def blocks_of(part: Stored) -> Iterator[np.ndarray]:
            for piece in pieces(part, step):
                yield np.frombuffer(piece, kind).reshape(-1, *columns)

        if axis == 0:
            for part in parts:
                yield from blocks_of(part)
            return
        for blocks in zip(*map(blocks_of, parts), strict=True):
            if axis == 1:
                yield np.concatenate(blocks, axis=1)
                continue
            if any(block.tobytes() != blocks[0].tobytes() for block in blocks):
                raise ValueError(f"{name} is not the same in all of {self.paths[0].parent}.")
            yield blocks[0]

    def _find(self, path: Path) -> dict[str, Stored]:
        """The tensors of a file, where they lie in it."""
        try:
            records = _records(path)
            loaded = self._load(path)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"{path} is no file of plain tensors ({reason}). Nothing in it was executed; copy "
                "or download it again, from where you trust."
            ) from error
        if not isinstance(loaded, dict) or not all(map(self._is_plain, loaded.values())):
            raise ValueError(f"{path} holds other things than named tensors.")
        found = {}
        for name, value in loaded.items():
            num_bytes = value.numel() * value.element_size()
            # One that is no record's first byte is not in the file.
            offset = value.untyped_storage()._checkpoint_offset
            begin = value.storage_offset() * value.element_size()
            # A tensor may claim any size of a record of a few bytes, and say it with its strides.
            if not value.is_contiguous() or records.get(offset, 0) < begin + num_bytes:
                raise ValueError(
                    f"{path}: {name} is a view of other values, not a tensor of its own; save it "
                    "again after .contiguous()."
                )
            dtype = str(value.dtype).removeprefix("torch.")
            found[name] = Stored(name, dtype, tuple(value.shape), path, offset + begin, num_bytes)
        return found

    def _load(self, path: Path) -> Any:
        def load() -> Any:
            return self._torch.load(path, map_location="meta", weights_only=True)

        loaded = load()
        if isinstance(loaded, dict) and all(map(self._is_plain, loaded.values())):
            return loaded
        # Older releases tell offsets in this mode alone, which is slow to begin.
        with self._torch._subclasses.FakeTensorMode():
            return load()

    def _is_plain(self, value: Any) -> bool:
        torch = self._torch
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return False
        return not value.is_quantized and value.untyped_storage()._checkpoint_offset is not None


def _records(path: Path) -> dict[int, int]:
    """Bytes of a ZIP's records, by the place of the first."""
    sizes = {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            file.seek(info.header_offset)
            header = file.read(_HEADER_BYTES)
            name_bytes, extra_bytes = struct.unpack_from("<HH", header, _HEADER_BYTES - 4)
            begin = info.header_offset + _HEADER_BYTES + name_bytes + extra_bytes
            sizes[begin] = info.file_size
    return sizes
