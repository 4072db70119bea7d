"""`llama-jax convert to-hf`: a checkpoint for PyTorch."""

import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert.checkpoint import (
    Checkpoint,
    open_checkpoint,
    open_run,
    packed,
    vocabulary_rows,
)
from llama_jax.cli.convert.moments import open_moments, with_moments
from llama_jax.cli.convert.provenance import find_words, origin_of
from llama_jax.cli.convert.results import check_disk, tell_kept, tell_plan
from llama_jax.cli.run_reader import read_config
from llama_jax.config import ModelConfig
from llama_jax.remote.objects import is_remote

if TYPE_CHECKING:
    from llama_jax.convert.hugging_face import Exported

_DESCRIPTION = """Exports a checkpoint as the folder that transformers reads: safetensors weights,
config, tokenizer, model card and certificate. The folder is complete or absent; an export that was
stopped goes on when it is started again.

example:
  llama-jax convert to-hf demo_run/model demo_run/hf
  llama-jax convert to-hf demo_run/model demo_run/hf16 --dtype bfloat16
  llama-jax convert to-hf demo_run/model demo_run/hf --optimizer
  llama-jax convert to-hf gs://bucket/run hf
  llama-jax convert to-hf llama2_70b out --dry-run"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to export, and to where.

    Attributes:
        run_dir: Folder that `llama-jax train` wrote, one checkpoint of it, or a gs:// or s3://
            place of either; with --dry-run also the name of a recipe.
        out_dir: Folder to write; must be absent or empty.
        step: Of the checkpoint; the newest by default.
        dtype: Of the written weights; "saved" is that of the checkpoint. Rounding is to nearest
            even.
        optimizer: Whether to write AdamW's moments too (float32, twice the bytes of float32
            weights), so that training can go on in PyTorch.
        without_tokenizer: Whether to leave the tokenizer out.
        max_shard_gigabytes: Of weights in one file, in 10^9 bytes.
        check: Whether to compare the result with its source: weights bit by bit, logits with those
            of transformers on real text. Needs PyTorch, and memory for two layers in float32.
        dry_run: Whether to say what it takes, and write nothing.
        json: Whether to print one JSON document.
    """

    run_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    out_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT_DIR")]
    step: int | None = None
    dtype: Literal["saved", "float32", "bfloat16"] = "saved"
    optimizer: bool = False
    without_tokenizer: bool = False
    max_shard_gigabytes: float = 5.0
    check: bool = False
    dry_run: bool = False
    json: bool = False


def to_hugging_face(argv: list[str]) -> int:
    """Runs `convert to-hf`."""
    options = tyro.cli(Options, prog="llama-jax convert to-hf", description=_DESCRIPTION, args=argv)
    if options.dry_run and not (options.run_dir.exists() or is_remote(options.run_dir)):
        return _plan_recipe(options)
    from llama_jax.convert.forecast import model_bytes
    from llama_jax.convert.hugging_face import export_hugging_face
    from llama_jax.convert.mapping import tensors_of
    from llama_jax.convert.moments import DTYPE, write_moments
    from llama_jax.convert.result_folder import check_out_dir
    from llama_jax.convert.transformers_program import require_transformers
    from llama_jax.observe.progress import Progress

    # What would be refused at the end is refused before anything is read.
    check_out_dir(options.out_dir)
    if options.check:
        require_transformers()
    run_dir, step = open_run(options.run_dir, options.step)
    config = read_config(run_dir)
    saved = open_checkpoint(run_dir, config, step)
    origin = origin_of(run_dir, config, saved)
    words = find_words(run_dir, config, origin, with_tokenizer=not options.without_tokenizer)
    dtype = None if options.dtype == "saved" else options.dtype
    vocab_size = vocabulary_rows(run_dir, config, saved.meta)
    moments = open_moments(run_dir, config, saved, dtype) if options.optimizer else None
    model = dataclasses.replace(config.model, vocab_size=vocab_size)
    read = model_bytes(model, lambda tensor: saved.params[tensor.pair.ours].dtype)
    size = read if dtype is None else model_bytes(model, lambda tensor: dtype)
    if options.dry_run:
        return _print_plan(options, model, read, size, bytes_of_pieces(model, saved))
    check_disk(options.out_dir, size + (2 * model_bytes(model, lambda _: DTYPE) if moments else 0))
    written = itertools.count(1)
    total = sum(1 for _ in tensors_of(model)) * (1 if moments is None else 3)
    with Progress("export", total=total, unit="tensors") as progress:
        exported = export_hugging_face(
            saved.params,
            config,
            options.out_dir,
            origin=origin,
            words=words,
            dtype=dtype,
            vocab_size=vocab_size,
            max_shard_bytes=int(options.max_shard_gigabytes * 1e9),
            source=saved.identity,
            beside=moments and functools.partial(write_moments, moments),
            on_known=tell_kept,
            on_tensor=lambda name, num_bytes: progress.advance(next(written)),
        )
    kinds = [dtype] if dtype else saved.dtypes
    _report(
        options, exported, " and ".join(kinds), saved.step, config.model.vocab_size - vocab_size
    )
    if not options.check:
        return 0
    from llama_jax.cli.convert.check import check_result

    return check_result(
        run_dir, options.out_dir, result=options.out_dir, step=saved.step, dtype=dtype
    )


def _report(options: Options, exported: "Exported", dtype: str, step: int, padding: int) -> None:
    if options.json:
        facts = dataclasses.asdict(exported) | {"directory": str(exported.directory)}
        print(json.dumps(facts | {"step": step, "dtype": dtype}))
    left_out = f"; {padding} rows that pad the vocabulary left out" if padding else ""
    print(
        f"{exported.directory}: {exported.num_params:,} parameters, "
        f"{exported.num_bytes / 1e6:,.1f} MB of {dtype}, {len(exported.files)} files{left_out}",
        file=sys.stderr,
    )


def _plan_recipe(options: Options) -> int:
    from llama_jax.convert.forecast import bytes_at_once, model_bytes
    from llama_jax.recipe import load_recipe

    model = load_recipe(str(options.run_dir)).model
    dtype = "float32" if options.dtype == "saved" else options.dtype
    read, written = (model_bytes(model, lambda _, kind=kind: kind) for kind in ("float32", dtype))
    return _print_plan(options, model, read, written, bytes_at_once(model, 4))


def bytes_of_pieces(model: ModelConfig, saved: Checkpoint) -> int:
    """What threads hold of a checkpoint at most, in whatever pieces it is stored.

    Args:
        model: Its shape, as it is written.
        saved: The checkpoint.
    """
    from llama_jax.convert.forecast import bytes_at_once
    from llama_jax.convert.stored import ITEM_BYTES

    arrays = list(packed(saved.params))
    # Arrays whose pieces hold several layers stay in memory as they are.
    pieces = sum(array.bytes_at_once for array in arrays if array.spans_layers)
    item = max(ITEM_BYTES[dtype] for dtype in saved.dtypes)
    return pieces + (bytes_at_once(model, item) if arrays else 0)


def _print_plan(options: Options, model: ModelConfig, read: int, written: int, at_once: int) -> int:
    from llama_jax.convert.forecast import forecast

    plan = forecast(model, read, written, options.out_dir, bytes_at_once=at_once)
    if options.optimizer:
        plan = with_moments(plan)
    return tell_plan(plan, as_json=options.json)
