"""Export to the folder that `transformers.AutoModelForCausalLM.from_pretrained` reads."""

import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from llama_jax import __version__
from llama_jax.config import ModelConfig, RunConfig
from llama_jax.convert import mapping, safetensors
from llama_jax.convert.certificate import tensor_entry, write_certificate
from llama_jax.convert.hugging_face_config import ExportDtype, model_config
from llama_jax.convert.model_card import model_card
from llama_jax.convert.origin import Origin
from llama_jax.convert.result_folder import Unfinished, result_folder
from llama_jax.convert.stored import Stored, array_pieces, numpy_dtype, pieces
from llama_jax.convert.words import Words
from llama_jax.recipe import to_json

MAX_SHARD_BYTES = 5_000_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        directory: The complete folder.
        files: Names of the files in it.
        num_params: Parameters written.
        num_bytes: Of the tensors.
    """

    directory: Path
    files: tuple[str, ...]
    num_params: int
    num_bytes: int


class LayerFile(Protocol):
    """A file that holds a layer, or an array without layers, and nothing else."""

    @property
    def path(self) -> Path: ...
    @property
    def order(self) -> tuple[int, ...]: ...
    @property
    def crc32(self) -> int: ...


class Parameter(Protocol):
    """An array of ours, in memory or not: `parameter[layer]` is a layer.

    One that has `layer_file(layer)` too (-1 of an array without layers), which may give None, is
    copied from its files where they hold the bytes in the order that they get.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, layer: int) -> Any: ...


class Beside(Protocol):
    """Writes what else belongs into the folder of exported weights.

    Gives entries of the files that it digested, and what the certificate says of it.
    """

    def __call__(
        self,
        unfinished: Unfinished,
        model: ModelConfig,
        *,
        max_shard_bytes: int,
        on_tensor: Callable[[str, int], None],
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]: ...


def export_hugging_face(
    params: Mapping[str, Parameter],
    config: RunConfig,
    out_dir: Path,
    *,
    origin: Origin,
    words: Words,
    dtype: ExportDtype | None = "float32",
    vocab_size: int | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    source: str | None = None,
    beside: Beside | None = None,
    on_tensor: Callable[[str, int], None] = lambda name, num_bytes: None,
    on_known: Callable[[int], None] = lambda count: None,
) -> Exported:
    """Writes weights, config, tokenizer and model card; the folder is complete or absent.

    Args:
        params: Our parameters by dotted path.
        config: Of the run that made them.
        out_dir: Must be absent or empty.
        origin: What the model card tells of the run.
        words: The tokenizer, and what is said of special tokens.
        dtype: Of the written weights; None writes each as it is.
        vocab_size: Rows of the vocabulary's tables that are exported; rows behind them only pad
            the tables. None exports all.
        max_shard_bytes: Of tensors in one file.
        source: What no other parameters have; a start that was stopped is then gone on with.
        beside: Writes the rest of the folder, after the model card.
        on_tensor: Called with the name and bytes of each tensor written.
        on_known: Called with the number of tensors that an earlier start wrote, if any.

    Raises:
        ValueError: If `out_dir` is in use, the parameters are not the config's, or transformers
            cannot hold such a model.
    """
    _check_request(params, config.model, dtype, max_shard_bytes)
    rows = config.model.vocab_size if vocab_size is None else vocab_size
    model = dataclasses.replace(config.model, vocab_size=rows)
    tensors = {tensor.name: tensor for tensor in mapping.tensors_of(model)}
    kinds = {name: dtype or str(params[tensor.pair.ours].dtype) for name, tensor in tensors.items()}

    def read(name: str) -> Iterator[memoryview]:
        tensor = tensors[name]
        return read_tensor(tensor, params[tensor.pair.ours], kinds[name], verify=False)

    request = None
    if source is not None:
        request = {"conversion": "to-hf", "made_by": __version__, "source": source, "dtype": dtype}
        request |= {"model": repr(model), "max_shard_bytes": max_shard_bytes}
        request |= {"beside": beside is not None}
    with result_folder(out_dir, request, on_known=on_known) as unfinished:
        files, checksums = safetensors.write(
            unfinished,
            {name: tensor.shape for name, tensor in tensors.items()},
            read,
            dtypes=kinds,
            max_shard_bytes=max_shard_bytes,
            on_tensor=on_tensor,
        )
        check_copies(model, params, kinds, checksums)
        _write_rest(unfinished.folder, config, model, origin, kinds, words)
        entries = {
            name: tensor_entry(kinds[name], tensor.shape, checksums[name])
            for name, tensor in tensors.items()
        }
        facts = {"conversion": "to-hf", "made_by": f"llama_jax {__version__}"}
        facts |= {"source": origin.facts(config, rows)}
        if beside is not None:
            more, said = beside(
                unfinished, model, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor
            )
            files, facts = files | more, facts | said
        write_certificate(unfinished.folder, known=files, tensors=entries, facts=facts)
    return Exported(
        directory=out_dir,
        files=tuple(sorted(path.name for path in out_dir.iterdir())),
        num_params=sum(int(np.prod(tensor.shape)) for tensor in tensors.values()),
        num_bytes=sum(safetensors.size_bytes(t.shape, kinds[n]) for n, t in tensors.items()),
    )


def _write_rest(
    folder: Path,
    config: RunConfig,
    model: ModelConfig,
    origin: Origin,
    kinds: Mapping[str, str],
    words: Words,
) -> None:
    """Writes all that is not weights: configs, tokenizer and model card."""
    sizes: dict[str, int] = dict.fromkeys(kinds.values(), 0)
    for tensor in mapping.tensors_of(model):
        sizes[kinds[tensor.name]] += math.prod(tensor.shape)
    most = max(sizes, key=lambda kind: sizes[kind])
    said = model_config(model, cast(ExportDtype, most), words.attributes)
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n")
    words.write(folder)
    if origin.has_config:
        (folder / "training_config.json").write_text(to_json(config))
    card = model_card(config, model, origin, " and ".join(sizes), has_tokenizer=words.has_tokenizer)
    (folder / "README.md").write_text(card, encoding="utf-8")


def read_tensor(
    tensor: mapping.Tensor, ours: Parameter, dtype: str, *, verify: bool = True
) -> Iterator[memoryview]:
    """The bytes of one of their tensors, in pieces; of a stacked parameter one layer is read.

    Args:
        tensor: Theirs.
        ours: The parameter that it comes from.
        dtype: Of the bytes.
        verify: Whether a file that is copied as it is is compared with its checksum; False leaves
            that to `check_copies`.

    Raises:
        ValueError: If a value is not finite, or a file is not what its checksum says.
    """
    if (file := _file_of(tensor, ours)) is not None:
        yield from _read_file(tensor, file, str(ours.dtype), dtype, verify)
        return
    value = np.asarray(ours if tensor.layer < 0 else ours[tensor.layer])
    if "V" in tensor.pair.our_axes.split():
        value = value[: tensor.shape[0]]
    yield from array_pieces(mapping.to_theirs(tensor, value), dtype, tensor.name)


def _read_file(
    tensor: mapping.Tensor, file: LayerFile, stored_dtype: str, dtype: str, verify: bool
) -> Iterator[memoryview]:
    size = file.path.stat().st_size
    stored = Stored(tensor.name, stored_dtype, tensor.shape, file.path, 0, size)
    left = safetensors.size_bytes(tensor.shape, stored_dtype)
    if not verify and stored_dtype == dtype and left == size:
        yield from pieces(stored)
        return
    crc = 0
    for piece in pieces(stored):
        crc = zlib.crc32(piece, crc)
        # Rows that pad a vocabulary's table are read for their checksum alone.
        wanted, left = piece[:left], left - min(left, len(piece))
        if stored_dtype == dtype:
            yield wanted
        elif wanted:
            values = np.frombuffer(wanted, numpy_dtype(stored_dtype))
            yield from array_pieces(values, dtype, tensor.name)
    _check_crc32(file, crc)


def check_copies(
    model: ModelConfig,
    params: Mapping[str, Parameter],
    kinds: Mapping[str, str],
    checksums: Mapping[str, int],
) -> None:
    """Compares the checksums of files that were copied as they are.

    Args:
        model: As it was written.
        params: That it came from, by dotted path.
        kinds: Dtypes of the written tensors.
        checksums: CRC-32 of the written tensors.

    Raises:
        ValueError: If one is not what the file's should be.
    """
    for tensor in mapping.tensors_of(model):
        ours, kind = params[tensor.pair.ours], kinds[tensor.name]
        file, size = _file_of(tensor, ours), safetensors.size_bytes(tensor.shape, kind)
        if file is not None and str(ours.dtype) == kind and size == file.path.stat().st_size:
            _check_crc32(file, checksums[tensor.name])


def _file_of(tensor: mapping.Tensor, ours: Parameter) -> LayerFile | None:
    """The file that holds the bytes of one of their tensors, if there is one."""
    file: LayerFile | None = getattr(ours, "layer_file", lambda layer: None)(tensor.layer)
    matches = file is not None and file.order == mapping.storage_order(tensor.pair)
    return file if matches else None


def _check_crc32(file: LayerFile, crc: int) -> None:
    if crc != file.crc32:
        raise ValueError(
            f"{file.path} has the CRC-32 {crc:08x}, not {file.crc32:08x}: its content changed "
            "since it was written. Take another checkpoint, or another copy."
        )


def _check_request(
    params: Mapping[str, Parameter],
    model: ModelConfig,
    dtype: str | None,
    max_shard_bytes: int,
) -> None:
    if dtype is not None and dtype not in safetensors.TAGS:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(safetensors.TAGS)}.")
    if max_shard_bytes <= 0:
        raise ValueError(f"max_shard_bytes={max_shard_bytes} must be positive.")
    if model.embed_dim % model.num_heads:
        raise ValueError(
            f"model.embed_dim={model.embed_dim} is no multiple of "
            f"model.num_heads={model.num_heads}; transformers refuses such a model."
        )
    wanted = mapping.our_shapes(model)
    given = {path: tuple(array.shape) for path, array in params.items()}
    for path in wanted | given:
        if wanted.get(path) != given.get(path):
            raise ValueError(
                f"parameter {path} has the shape {given.get(path, 'absent')}; the run's config "
                f"says {wanted.get(path, 'absent')}. Checkpoint and config.json do not match."
            )
