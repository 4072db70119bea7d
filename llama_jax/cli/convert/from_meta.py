"""`llama-jax convert from-meta`: Meta's release of a LLaMA becomes a run's folder."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert.imported_run import print_plan, run_config, write_run
from llama_jax.cli.convert.results import check_disk

_DESCRIPTION = """Imports Meta's release of a LLaMA (params.json and consolidated.NN.pth, any number
of ranks) as a run's folder with one checkpoint. Nothing pickled is executed. Needs PyTorch.

example:
  llama-jax convert from-meta llama-2-7b imported --max-seq-len 4096
  llama-jax convert from-meta Llama3.2-1B imported --max-seq-len 131072 --rope-factor 32"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
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

    meta_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="META_DIR")]
    out_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT_DIR")]
    max_seq_len: int | None = None
    rope_factor: float | None = None
    check: bool = False
    dry_run: bool = False
    json: bool = False


def from_meta(argv: list[str]) -> int:
    """Runs `convert from-meta`."""
    options = tyro.cli(
        Options, prog="llama-jax convert from-meta", description=_DESCRIPTION, args=argv
    )
    from llama_jax.convert.meta_import import bytes_at_once, plan_meta_import
    from llama_jax.convert.result_folder import check_out_dir

    check_out_dir(options.out_dir)
    plan = plan_meta_import(
        options.meta_dir, max_seq_len=options.max_seq_len, rope_factor=options.rope_factor
    )
    check_disk(options.out_dir, plan.num_bytes)
    dtypes = sorted(set(plan.dtypes().values()))
    if options.dry_run:
        at_once = bytes_at_once(plan)
        return print_plan(plan, options.out_dir, options.json, bytes_at_once=at_once)
    write_run(plan, run_config(plan.name, plan.model), options.out_dir, "from-meta")
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
