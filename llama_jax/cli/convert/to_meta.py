"""`llama-jax convert to-meta`: a checkpoint as Meta's code reads it."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro
from tyro.conf import Positional

from llama_jax import __version__
from llama_jax.cli.convert.checkpoint import Checkpoint, open_checkpoint, open_run
from llama_jax.cli.convert.provenance import origin_of
from llama_jax.cli.convert.results import check_disk, tell_kept, tell_plan
from llama_jax.cli.convert.to_hugging_face import bytes_of_pieces
from llama_jax.cli.run_reader import find_run_tokenizer, read_config
from llama_jax.config import ModelConfig, RunConfig

if TYPE_CHECKING:
    from llama_jax.convert.weights import Weights

_DESCRIPTION = """Exports a checkpoint as Meta's code reads it: params.json and consolidated.NN.pth.
The folder is complete or absent; an export that was stopped goes on when it is started again.
--check needs PyTorch.

example:
  llama-jax convert to-meta demo_run/model demo_run/meta --model-parallel 2"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to export, and to where.

    Attributes:
        run_dir: Folder that `llama-jax train` or an import wrote, one checkpoint of it, or a gs://
            or s3:// place of either.
        out_dir: Folder to write; must be absent or empty.
        step: Of the checkpoint; the newest by default.
        dtype: Of the written weights; "saved" is that of the checkpoint.
        model_parallel: Files, one a rank; as they were for what came from Meta's, else 1.
        check: Whether to compare the result with its source: weights bit by bit, logits with those
            of Meta's model on the same tokens. Needs memory for two layers in float32.
        dry_run: Whether to say what it takes, and write nothing.
        json: Whether to print one JSON document.
    """

    run_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    out_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT_DIR")]
    step: int | None = None
    dtype: Literal["saved", "float32", "bfloat16"] = "saved"
    model_parallel: int | None = None
    check: bool = False
    dry_run: bool = False
    json: bool = False


def to_meta(argv: list[str]) -> int:
    """Runs `convert to-meta`."""
    options = tyro.cli(
        Options, prog="llama-jax convert to-meta", description=_DESCRIPTION, args=argv
    )
    from llama_jax.cli.convert.check import check_result, weights_of
    from llama_jax.convert.forecast import forecast, model_bytes
    from llama_jax.convert.meta_export import bytes_at_once
    from llama_jax.convert.meta_shards import require_torch
    from llama_jax.convert.result_folder import check_out_dir

    # What would be refused at the end is refused before anything is read.
    check_out_dir(options.out_dir)
    if options.check:
        require_torch()
    run_dir, step = open_run(options.run_dir, options.step)
    options = dataclasses.replace(options, run_dir=run_dir, step=step)
    config = read_config(run_dir)
    saved = open_checkpoint(run_dir, config, step)
    dtype = None if options.dtype == "saved" else options.dtype
    weights = weights_of(run_dir, config, saved, dtype, verify=False)
    written = model_bytes(weights.model, lambda tensor: weights.dtypes[tensor.name])
    layout = _layout_of(options, saved, weights.model)
    if options.dry_run:
        read = model_bytes(weights.model, lambda tensor: saved.params[tensor.pair.ours].dtype)
        at_once = bytes_of_pieces(weights.model, saved) + bytes_at_once(weights, layout.ranks)
        plan = forecast(weights.model, read, written, options.out_dir, bytes_at_once=at_once)
        return tell_plan(plan, as_json=options.json)
    check_disk(options.out_dir, written)
    _write(options, config, saved, weights, layout)
    kinds = sorted(set(weights.dtypes.values()))
    if options.json:
        told = {"directory": str(options.out_dir), "bytes": written, "dtypes": kinds}
        print(json.dumps(told | {"ranks": layout.ranks, "step": saved.step}))
    padding = config.model.vocab_size - weights.model.vocab_size
    left_out = f"; {padding} rows that pad the vocabulary left out" if padding else ""
    print(
        f"{options.out_dir}: {written / 1e6:,.1f} MB of {' and '.join(kinds)} in {layout.ranks} "
        f"{'file' if layout.ranks == 1 else 'files'}{left_out}",
        file=sys.stderr,
    )
    if not options.check:
        return 0
    return check_result(
        run_dir, options.out_dir, result=options.out_dir, step=saved.step, dtype=dtype
    )


class _Layout(NamedTuple):
    """How the files are cut: as they were for what came from Meta's, unless told otherwise."""

    ranks: int
    embedding_axis: int
    params: dict[str, Any] | None


def _layout_of(options: Options, saved: Checkpoint, model: ModelConfig) -> _Layout:
    known = saved.imported["config"] if saved.imported.get("conversion") == "from-meta" else {}
    params = known.get("params")
    if params is not None and not _describes(params, model):
        params = None
    ranks = known.get("ranks", 1) if options.model_parallel is None else options.model_parallel
    return _Layout(ranks, known.get("embedding_axis", 0), params)


def _write(
    options: Options, config: RunConfig, saved: Checkpoint, weights: "Weights", layout: _Layout
) -> None:
    """Writes the folder, complete or absent."""
    from llama_jax.convert.certificate import write_certificate
    from llama_jax.convert.hugging_face import check_copies
    from llama_jax.convert.meta_export import write_meta
    from llama_jax.convert.result_folder import result_folder
    from llama_jax.observe.progress import Progress

    request = {"conversion": "to-meta", "made_by": __version__, "source": saved.identity}
    request |= {"dtype": options.dtype, "model": repr(weights.model), "layout": layout[:2]}
    with result_folder(options.out_dir, request, on_known=tell_kept) as unfinished:
        with Progress("export", total=len(weights.dtypes), unit="tensors") as progress:
            files, tensors = write_meta(
                unfinished,
                weights,
                ranks=layout.ranks,
                embedding_axis=layout.embedding_axis,
                params=layout.params,
                on_tensor=progress.advance,
            )
        checksums = {name: int(entry["crc32"], 16) for name, entry in tensors.items()}
        check_copies(weights.model, saved.params, weights.dtypes, checksums)
        _copy_tokenizer(options.run_dir, config, unfinished.folder)
        origin = origin_of(options.run_dir, config, saved)
        facts = {"conversion": "to-meta", "made_by": f"llama_jax {__version__}"}
        facts |= {"source": origin.facts(config, weights.model.vocab_size)}
        write_certificate(unfinished.folder, known=files, tensors=tensors, facts=facts)


def _describes(params: dict[str, Any], model: ModelConfig) -> bool:
    """Whether a `params.json` that a model came with is still of that model."""
    from llama_jax.convert import meta

    arguments = {"vocab_size": model.vocab_size, "tied": model.tie_embeddings}
    arguments |= meta.filled_in(params, model)
    try:
        return meta.model_of(Path("params.json"), params, **arguments) == model
    except ValueError:
        return False


def _copy_tokenizer(run_dir: Path, config: RunConfig, folder: Path) -> None:
    try:
        tokenizer = find_run_tokenizer(run_dir, config)
    except ValueError:
        print("note: the run has no tokenizer; none is exported", file=sys.stderr)
    else:
        shutil.copyfile(tokenizer, folder / "tokenizer.model")
