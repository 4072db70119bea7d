"""`llama-jax convert from-meta`, `to-meta` and `from-llama2c`: the layouts of reference codes."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from llama_jax import __version__
from llama_jax.cli.convert.checkpoint import open_checkpoint, open_run
from llama_jax.cli.convert.from_hugging_face import check_disk, run_config, tell_kept, write_run
from llama_jax.cli.run_reader import find_run_tokenizer, read_config
from llama_jax.config import ModelConfig, RunConfig

_FROM = """Imports Meta's release of a LLaMA (params.json and consolidated.NN.pth, any number of
ranks) as a run's folder with one checkpoint. Nothing pickled is executed. Needs PyTorch.

example:
  llama-jax convert from-meta llama-2-7b imported --max-seq-len 4096
  llama-jax convert from-meta Llama3.2-1B imported --max-seq-len 131072 --rope-factor 32"""
_TO = """Exports a checkpoint as Meta's code reads it: params.json and consolidated.NN.pth.
Needs PyTorch.

example:
  llama-jax convert to-meta demo_run/model demo_run/meta --model-parallel 2"""


_FROM_LLAMA2C = """Imports a model in llama2.c's first binary layout as a run's folder.

example:
  llama-jax convert from-llama2c stories260K.bin imported"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama2cOptions:
    """What to import, and to where.

    Attributes:
        file: In llama2.c's layout of version 0.
        out_dir: Folder to write; must be absent or empty.
    """

    file: Positional[Path]
    out_dir: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromOptions:
    """What to import, and to where.

    Attributes:
        meta_dir: Folder with params.json and consolidated.NN.pth.
        out_dir: Folder to write; must be absent or empty.
        max_seq_len: Context of the model, where params.json does not say it: 2048 of LLaMA-1, 4096
            of LLaMA-2, 8192 of LLaMA-3, 131072 of LLaMA-3.1 and 3.2.
        rope_factor: Of a stretched RoPE, where params.json does not say it: 8 of LLaMA-3.1, 32 of
            LLaMA-3.2.
        check: Whether to compare the result with its source: weights bit by bit, logits with those
            of Meta's model on the same tokens. Needs memory for two layers in float32.
        dry_run: Whether to check everything but the values, say what it takes, and write nothing.
        json: Whether to print one JSON document.
    """

    meta_dir: Positional[Path]
    out_dir: Positional[Path]
    max_seq_len: int | None = None
    rope_factor: float | None = None
    check: bool = False
    dry_run: bool = False
    json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToOptions:
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
    """

    run_dir: Positional[Path]
    out_dir: Positional[Path]
    step: int | None = None
    dtype: Literal["saved", "float32", "bfloat16"] = "saved"
    model_parallel: int | None = None
    check: bool = False


def from_meta(argv: list[str]) -> int:
    """Runs `convert from-meta`."""
    options = tyro.cli(
        FromOptions, prog="llama-jax convert from-meta", description=_FROM, args=argv
    )
    from llama_jax.convert.meta_import import plan_meta_import
    from llama_jax.convert.result_folder import check_out_dir

    check_out_dir(options.out_dir)
    plan = plan_meta_import(
        options.meta_dir, max_seq_len=options.max_seq_len, rope_factor=options.rope_factor
    )
    check_disk(options.out_dir, plan.num_bytes)
    dtypes = sorted(set(plan.dtypes().values()))
    if options.dry_run:
        from llama_jax.convert.forecast import forecast
        from llama_jax.convert.meta_import import bytes_at_once
        from llama_jax.convert.stored import ITEM_BYTES

        at_once = bytes_at_once(plan.model, ITEM_BYTES[dtypes[0]])
        expected = forecast(
            plan.model, dtypes[0], dtypes[0], options.out_dir, bytes_at_once=at_once
        )
        if options.json:
            print(json.dumps(dataclasses.asdict(expected)))
        print(expected, file=sys.stderr)
        return 0
    write_run(plan, run_config(plan.folder, plan.model), options.out_dir, "from-meta")
    facts = {"directory": str(options.out_dir), "bytes": plan.num_bytes, "dtypes": dtypes}
    if options.json:
        print(json.dumps(facts | {"ranks": plan.config["ranks"]}))
    print(
        f"{options.out_dir}: {plan.num_bytes / 1e6:,.1f} MB of {' and '.join(dtypes)} from "
        f"{plan.config['ranks']} ranks, context {plan.model.max_seq_len:,}, {plan.model.rope}",
        file=sys.stderr,
    )
    if not options.check:
        return 0
    from llama_jax.cli.convert.check import check_result

    return check_result(options.out_dir, options.meta_dir, result=options.out_dir, step=None)


def from_llama2c(argv: list[str]) -> int:
    """Runs `convert from-llama2c`."""
    options = tyro.cli(
        Llama2cOptions,
        prog="llama-jax convert from-llama2c",
        description=_FROM_LLAMA2C,
        args=argv,
    )
    from llama_jax.convert.llama2c import plan_llama2c_import
    from llama_jax.convert.result_folder import check_out_dir

    check_out_dir(options.out_dir)
    plan = plan_llama2c_import(options.file)
    check_disk(options.out_dir, plan.num_bytes)
    write_run(plan, run_config(plan.folder, plan.model), options.out_dir, "from-llama2c")
    print(f"{options.out_dir}: {plan.num_bytes / 1e6:,.1f} MB of float32", file=sys.stderr)
    return 0


def to_meta(argv: list[str]) -> int:
    """Runs `convert to-meta`."""
    options = tyro.cli(ToOptions, prog="llama-jax convert to-meta", description=_TO, args=argv)
    from llama_jax.cli.convert.check import check_result, weights_of
    from llama_jax.convert.certificate import write_certificate
    from llama_jax.convert.meta_export import write_meta
    from llama_jax.convert.result_folder import check_out_dir, result_folder

    check_out_dir(options.out_dir)
    run_dir, step = open_run(options.run_dir, options.step)
    options = dataclasses.replace(options, run_dir=run_dir, step=step)
    config = read_config(options.run_dir)
    saved = open_checkpoint(options.run_dir, config, options.step)
    imported: dict[str, Any] = saved.meta.get("imported", {})
    layout = imported["config"] if imported.get("conversion") == "from-meta" else {}
    dtype = saved.dtype if options.dtype == "saved" else options.dtype
    weights = weights_of(options.run_dir, config, saved, dtype)
    params = layout.get("params")
    if params is not None and not _describes(params, weights.model):
        params = None
    ranks = options.model_parallel or layout.get("ranks", 1)
    axis = layout.get("embedding_axis", 0)
    request = {"conversion": "to-meta", "made_by": __version__, "source": saved.identity}
    request |= {"dtype": dtype, "model": repr(weights.model), "layout": [ranks, axis]}
    with result_folder(options.out_dir, request, on_known=tell_kept) as unfinished:
        files, tensors = write_meta(
            unfinished,
            weights,
            ranks=ranks,
            embedding_axis=axis,
            params=params,
        )
        _copy_tokenizer(options.run_dir, config, unfinished.folder)
        source = {"step": saved.step, "tokens": saved.meta.get("tokens", 0)}
        facts = {"conversion": "to-meta", "made_by": f"llama_jax {__version__}", "source": source}
        write_certificate(unfinished.folder, known=files, tensors=tensors, facts=facts)
    print(f"{options.out_dir}: {dtype} in {ranks} files", file=sys.stderr)
    if not options.check:
        return 0
    return check_result(
        options.run_dir, options.out_dir, result=options.out_dir, step=saved.step, dtype=dtype
    )


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
