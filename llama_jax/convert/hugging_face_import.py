"""Import of the folder that transformers' `save_pretrained` writes: all of it, or a refusal."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.convert import mapping
from llama_jax.convert.hugging_face_config import read_model_config
from llama_jax.convert.result_folder import Unfinished
from llama_jax.convert.safetensors_reader import read_folder
from llama_jax.convert.stored import ITEM_BYTES, Stored, Written, numpy_dtype, pieces, write_pieces

_THREADS = 3  # one of which waits for the disk
_ADAPTER = "adapter_config.json"
# Old conversions of LLaMA saved the rotary wavelengths too, which follow from the config.
_WAVELENGTHS = "model.layers.{layer}.self_attn.rotary_emb.inv_freq"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """What a folder holds, understood in full.

    Attributes:
        name: Of the model.
        folder: Of the files.
        beside: The folder whose other files belong to the model; None where no others do.
        model: With the rows that pad the vocabulary.
        config: What the folder says of the model, as it says it.
        vocab_size: Rows of the vocabulary without padding.
        tensors: Every tensor of the model, and where it lies, in the order of the files.
        left_out: Names of tensors that follow from others, and were found to.
        files: That hold the tensors.
        read: Gives the bytes of a tensor, in pieces.
    """

    name: str
    folder: Path
    beside: Path | None
    model: ModelConfig
    config: dict[str, Any]
    vocab_size: int
    tensors: tuple[tuple[mapping.Tensor, Stored], ...]
    left_out: tuple[str, ...]
    files: tuple[Path, ...]
    read: Callable[[Stored], Iterator[memoryview]] = pieces

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(stored.num_bytes for _, stored in self.tensors)

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of every tensor, as far as it can be told without reading them."""
        stats = {path.name: path.stat() for path in self.files}
        return {
            "config": self.config,
            "model": repr(self.model),
            "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        }

    def dtypes(self) -> dict[str, str]:
        """Of each of our parameters, by path."""
        return {tensor.pair.ours: stored.dtype for tensor, stored in self.tensors}

    def zero_bytes(self, tensor: mapping.Tensor, stored: Stored) -> int:
        """Bytes of the rows that pad a vocabulary's table."""
        if "V" not in tensor.pair.our_axes.split():
            return 0
        rows = self.model.vocab_size - self.vocab_size
        return rows * math.prod(tensor.shape[1:]) * ITEM_BYTES[stored.dtype]


def plan_import(folder: Path, *, pad_vocab_to_multiple: int = 1) -> Import:
    """Reads a folder's config and headers, and no tensor.

    Args:
        folder: That `save_pretrained` wrote.
        pad_vocab_to_multiple: Rows of zeros fill the vocabulary's tables up to a multiple of it.

    Raises:
        ValueError: If anything in it is missing, unknown, of another shape, or damaged.
    """
    if pad_vocab_to_multiple < 1:
        raise ValueError(f"--pad-vocab-to-multiple={pad_vocab_to_multiple} must be positive.")
    if (folder / _ADAPTER).is_file():
        raise ValueError(
            f"{folder / _ADAPTER} says that an adapter changes the weights; transformers would add "
            "it, so merge it first (merge_and_unload of peft), or remove the file."
        )
    model, config = read_model_config(folder)
    found = read_folder(folder)
    wanted = {tensor.name: tensor for tensor in mapping.tensors_of(model)}
    left_out = _leave_out(folder, model, found)
    check_names(folder, model, wanted, found)
    tensors = [(wanted[name], stored) for name, stored in found.items()]
    check_dtypes(folder, tensors)
    rows = -(-model.vocab_size // pad_vocab_to_multiple) * pad_vocab_to_multiple
    return Import(
        name=folder.absolute().name,
        folder=folder,
        beside=folder,
        model=dataclasses.replace(model, vocab_size=rows),
        config=config,
        vocab_size=model.vocab_size,
        tensors=tuple(sorted(tensors, key=lambda pair: (pair[1].path, pair[1].offset))),
        left_out=left_out,
        files=tuple(sorted({stored.path for stored in found.values()})),
    )


def copy_tensors(
    plan: Import, unfinished: Unfinished, name_of: Callable[[mapping.Tensor], str]
) -> Iterator[tuple[mapping.Tensor, Stored, Written]]:
    """Copies each tensor into a file of its own; memory holds a few pieces of any model.

    Bytes stay as they are: `mapping.storage_order` says in which order of our axes they lie. A file
    that an earlier start wrote is kept where it still has the SHA-256 that was recorded.

    Raises:
        ValueError: If a file is cut short, or a value is not finite.
    """

    def work(pair: tuple[mapping.Tensor, Stored]) -> Written:
        tensor, stored = pair
        name = name_of(tensor)
        if (entry := unfinished.known_file(name)) is not None:
            return Written(**entry)
        zeros = plan.zero_bytes(tensor, stored)
        written = write_pieces(plan.read(stored), unfinished.folder / name, zero_bytes=zeros)
        unfinished.record(name, written._asdict())
        return written

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for (tensor, stored), written in zip(
                plan.tensors, pool.map(work, plan.tensors), strict=True
            ):
                yield tensor, stored, written
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_out(folder: Path, model: ModelConfig, found: dict[str, Stored]) -> tuple[str, ...]:
    """Removes tensors that say nothing new, after a look at whether that is so."""
    left_out = []
    powers = np.arange(0, model.head_dim, 2) / model.head_dim
    for layer in range(model.num_layers):
        if (name := _WAVELENGTHS.format(layer=layer)) in found:
            stored = found.pop(name)
            values = _values(stored)
            # Saved in half precision, they are rounded.
            if values.shape != powers.shape or not np.allclose(
                values, model.rope.theta**-powers, rtol=2e-2, atol=1e-6
            ):
                raise ValueError(
                    f"{folder}: {name} does not hold the wavelengths of rope_theta="
                    f"{model.rope.theta:g}; config.json and weights do not belong together."
                )
            left_out.append(name)
    if model.tie_embeddings and "lm_head.weight" in found:
        output, embedding = found.pop("lm_head.weight"), found.get("model.embed_tokens.weight")
        if embedding is None or not _same_bytes(output, embedding):
            raise ValueError(
                f"{folder}: tie_word_embeddings=true, but lm_head.weight is not "
                "model.embed_tokens.weight; set it to false in config.json to keep both tables."
            )
        left_out.append("lm_head.weight")
    return tuple(left_out)


def check_names(
    folder: Path, model: ModelConfig, wanted: dict[str, mapping.Tensor], found: dict[str, Stored]
) -> None:
    """Raises ValueError if a folder lacks a tensor of a model, or has others or other shapes."""
    if unknown := sorted(found.keys() - wanted.keys()):
        raise ValueError(
            f"{folder}: the tensor {unknown[0]} ({len(unknown)} in all) has no place in the LLaMA "
            f"of {model.num_layers} layers that config.json describes; convert a folder whose "
            "config and weights belong together, without adapters or biases."
        )
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(
            f"{folder}: the tensor {missing[0]} is missing ({len(missing)} in all); the folder is "
            "incomplete, or config.json is another model's: copy or download it again."
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{folder}: {name} has the shape {found[name].shape}; config.json says "
                f"{tensor.shape}. One of the two is another model's."
            )


def check_dtypes(folder: Path, tensors: list[tuple[mapping.Tensor, Stored]]) -> None:
    """Raises ValueError if the layers of a parameter have several dtypes."""
    first: dict[str, Stored] = {}
    for tensor, stored in tensors:
        other = first.setdefault(tensor.pair.ours, stored)
        if other.dtype != stored.dtype:
            raise ValueError(
                f"{folder}: {stored.name} is {stored.dtype}, {other.name} is {other.dtype}; layers "
                "are stacked here, so all must have one dtype: save the model again in one."
            )


def _same_bytes(first: Stored, second: Stored) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(a == b for a, b in zip(pieces(first), pieces(second), strict=True))


def _values(stored: Stored) -> np.ndarray:
    if stored.num_bytes > 1 << 16:
        return np.empty(0)
    data = b"".join(bytes(piece) for piece in pieces(stored))
    return np.frombuffer(data, numpy_dtype(stored.dtype)).astype(np.float64)
