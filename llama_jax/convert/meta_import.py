"""Import of Meta's `consolidated.NN.pth`; nothing pickled in them is executed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.convert import forecast, mapping, meta
from llama_jax.convert.hugging_face_import import Import, check_dtypes
from llama_jax.convert.stored import ITEM_BYTES, PIECE_BYTES, Stored, array_pieces, numpy_dtype

# After so many bytes the files are mapped anew, which gives the pages read back.
_REMAP_BYTES = 64 << 20


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
    """The files of all model-parallel ranks, mapped and not read."""

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
        self._read = 0
        self._tensors = [self._load(path) for path in self.paths]

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            loaded = self._torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise ValueError(
                f"{path} is no file of plain tensors ({reason}). Nothing in it was executed; copy "
                "or download it again, from where you trust."
            ) from error
        if not isinstance(loaded, dict) or not all(map(self._is_plain, loaded.values())):
            raise ValueError(f"{path} holds other things than named tensors.")
        for name, value in loaded.items():
            # A tensor may claim any size of a storage of a few bytes, and say it with its strides.
            needed = value.numel() * value.element_size()
            if not value.is_contiguous() or value.untyped_storage().nbytes() < needed:
                raise ValueError(
                    f"{path}: {name} is a view of other values, not a tensor of its own; save it "
                    "again after .contiguous()."
                )
        return loaded

    def _is_plain(self, value: Any) -> bool:
        torch = self._torch
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return False
        return value.device.type == "cpu" and not value.is_quantized

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
        return [tuple(tensors[name].shape) for tensors in self._tensors]

    def dtype(self, name: str) -> str:
        """Of a tensor.

        Raises:
            ValueError: If it is none of a model's, or the slices of it differ.
        """
        kinds = [str(tensors[name].dtype).removeprefix("torch.") for tensors in self._tensors]
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
        parts = [self._array(tensors[name]) for tensors in self._tensors]
        num_bytes = sum(part.nbytes for part in parts)
        if axis is None:
            if any(part.tobytes() != parts[0].tobytes() for part in parts):
                raise ValueError(f"{name} is not the same in all of {self.paths[0].parent}.")
            whole = parts[0].copy()
        else:
            whole = np.concatenate(parts, axis=axis)
        del parts
        self._count(num_bytes)
        return whole

    def rows(self, name: str, rank: int, start: int, stop: int) -> np.ndarray:
        """Some rows of one rank's slice."""
        part = self._array(self._tensors[rank][name][start:stop]).copy()
        self._count(part.nbytes)
        return part

    def _count(self, num_bytes: int) -> None:
        self._read += num_bytes
        if self._read >= _REMAP_BYTES:
            self._read = 0
            self._tensors = [self._load(path) for path in self.paths]

    def _array(self, tensor: Any) -> np.ndarray:
        kind = numpy_dtype(str(tensor.dtype).removeprefix("torch."))
        bits = self._torch.int16 if kind.itemsize == 2 else self._torch.int32
        return tensor.view(bits).numpy().view(kind)


def plan_meta_import(
    folder: Path, *, max_seq_len: int | None = None, rope_factor: float | None = None
) -> Import:
    """Reads a folder's parameters and the shapes of its tensors.

    Args:
        folder: With params.json and consolidated.NN.pth.
        max_seq_len: Context, where params.json leaves it open.
        rope_factor: Of a stretched RoPE, where params.json leaves it open.

    Raises:
        ValueError: If anything in it is missing, unknown, of another shape, or damaged.
    """
    shards = Shards(folder)
    names = shards.names()
    if meta.EMBEDDING not in names:
        raise ValueError(f"{folder}: the tensor {meta.EMBEDDING} is missing.")
    # LLaMA-1 and 2 split the embedding by columns, LLaMA-3 by rows.
    dim = meta.read_json(folder / "params.json").get("dim")
    shapes = shards.shapes(meta.EMBEDDING)
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"{folder}: {meta.EMBEDDING} has the shapes {shapes}; it is no table.")
    by_rows = shapes[0][1] == dim
    rows = _whole(shapes, 0)[0] if by_rows else shapes[0][0]
    tied = meta.OUTPUT not in names or _is_tied(shards, by_rows)
    model, params = meta.read_params(
        folder, vocab_size=rows, tied=tied, max_seq_len=max_seq_len, rope_factor=rope_factor
    )
    places = {t.name: meta.place_of(t, model) for t in mapping.tensors_of(model)}
    axes = {place.name: place.axis for place in places.values()}
    axes[meta.EMBEDDING] = 0 if by_rows else 1
    left_out = names & ({meta.WAVELENGTHS} | ({meta.OUTPUT} if tied else set()))
    tensors = tuple(mapping.tensors_of(model))
    _check(folder, shards, names - left_out, {t.name: t.shape for t in tensors}, places, axes)

    def read(stored: Stored) -> Iterator[memoryview]:
        place = places[stored.name]
        value = shards.read(place.name, axes[place.name])
        if place.heads:
            value = meta.halves_of(value, place.heads)
        yield from array_pieces(value, stored.dtype, place.name)

    stored = []
    for tensor in tensors:
        dtype = shards.dtype(places[tensor.name].name)
        num_bytes = int(np.prod(tensor.shape)) * ITEM_BYTES[dtype]
        stored.append((tensor, Stored(tensor.name, dtype, tensor.shape, folder, 0, num_bytes)))
    check_dtypes(folder, [(t, s._replace(name=places[t.name].name)) for t, s in stored])
    layout = {"ranks": len(shards.paths), "embedding_axis": axes[meta.EMBEDDING], "params": params}
    return Import(
        name=folder.absolute().name,
        folder=folder,
        beside=folder,
        model=model,
        config=layout,
        vocab_size=rows,
        tensors=tuple(stored),
        left_out=tuple(sorted(left_out)),
        files=tuple(shards.paths),
        read=read,
    )


def bytes_at_once(model: ModelConfig, item_bytes: int) -> int:
    """What an import holds beside a few pieces: tensors and copies of them, and mapped pages."""
    return forecast.bytes_at_once(model, item_bytes, mapped=True) + _REMAP_BYTES


def _is_tied(shards: Shards, by_rows: bool) -> bool:
    """Whether the output table is the embedding, a few rows at a time."""
    output, embedding = shards.shapes(meta.OUTPUT), shards.shapes(meta.EMBEDDING)
    axis, ranks = (0 if by_rows else 1), range(len(shards.paths))
    if any(len(shape) != 2 for shape in output + embedding) or (
        _whole(output, 0) != _whole(embedding, axis)
        or shards.dtype(meta.OUTPUT) != shards.dtype(meta.EMBEDDING)
    ):
        return False
    if by_rows and output != embedding:
        return False
    step, before = max(1, PIECE_BYTES // (4 * output[0][1])), 0
    for rank in ranks:
        for start in range(0, output[rank][0], step):
            stop = min(start + step, output[rank][0])
            if by_rows:
                expected = shards.rows(meta.EMBEDDING, rank, start, stop)
            else:
                parts = [
                    shards.rows(meta.EMBEDDING, r, before + start, before + stop) for r in ranks
                ]
                expected = np.concatenate(parts, axis=1)
            if shards.rows(meta.OUTPUT, rank, start, stop).tobytes() != expected.tobytes():
                return False
        before += output[rank][0]
    return True


def _whole(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...]:
    """Shape of a tensor that ranks have slices of along an axis."""
    first = list(shapes[0])
    first[axis] = sum(shape[axis] for shape in shapes)
    return tuple(first)


def _check(
    folder: Path,
    shards: Shards,
    names: set[str],
    shapes: dict[str, tuple[int, ...]],
    places: dict[str, meta.Place],
    axes: dict[str, int | None],
) -> None:
    wanted = {place.name: name for name, place in places.items()}
    if unknown := sorted(names - wanted.keys()):
        raise ValueError(
            f"{folder}: the tensor {unknown[0]} ({len(unknown)} in all) has no place in the LLaMA "
            "that params.json describes; the two do not belong together."
        )
    if missing := sorted(wanted.keys() - names):
        raise ValueError(
            f"{folder}: the tensor {missing[0]} is missing ({len(missing)} in all); copy or "
            "download the files again."
        )
    ranks = len(shards.paths)
    for theirs, ours in wanted.items():
        expected = list(shapes[ours])
        if (axis := axes[theirs]) is not None:
            if expected[axis] % ranks:
                raise ValueError(f"{folder}: {ranks} ranks cannot split {theirs} of {expected}.")
            expected[axis] //= ranks
        for path, shape in zip(shards.paths, shards.shapes(theirs), strict=True):
            if shape != tuple(expected):
                raise ValueError(
                    f"{path}: {theirs} has the shape {shape}; params.json and {ranks} ranks say "
                    f"{tuple(expected)}."
                )
