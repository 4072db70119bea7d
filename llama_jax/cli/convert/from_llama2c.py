"""`llama-jax convert from-llama2c`: a file of llama2.c becomes a run's folder."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert.imported_run import print_plan, run_config, write_run
from llama_jax.cli.convert.results import check_disk

_DESCRIPTION = """Imports a model in llama2.c's first binary layout as a run's folder. No file but
that one is read.

example:
  llama-jax convert from-llama2c stories260K.bin imported"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to import, and to where.

    Attributes:
        file: In llama2.c's layout of version 0.
        out_dir: Folder to write; must be absent or empty.
        dry_run: Whether to check everything but the values, say what it takes, and write nothing.
        json: Whether to print one JSON document.
    """

    file: Annotated[Positional[Path], tyro.conf.arg(metavar="FILE")]
    out_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT_DIR")]
    dry_run: bool = False
    json: bool = False


def from_llama2c(argv: list[str]) -> int:
    """Runs `convert from-llama2c`."""
    options = tyro.cli(
        Options, prog="llama-jax convert from-llama2c", description=_DESCRIPTION, args=argv
    )
    from llama_jax.convert.forecast import bytes_at_once
    from llama_jax.convert.llama2c import plan_llama2c_import
    from llama_jax.convert.result_folder import check_out_dir

    check_out_dir(options.out_dir)
    plan = plan_llama2c_import(options.file)
    check_disk(options.out_dir, plan.num_bytes)
    if options.dry_run:
        at_once = bytes_at_once(plan.model, 4)
        return print_plan(plan, options.out_dir, options.json, bytes_at_once=at_once)
    write_run(plan, run_config(plan.name, plan.model), options.out_dir, "from-llama2c")
    if options.json:
        facts = {"directory": str(options.out_dir), "bytes": plan.num_bytes}
        print(json.dumps(facts | {"dtypes": ["float32"]}))
    print(f"{options.out_dir}: {plan.num_bytes / 1e6:,.1f} MB of float32", file=sys.stderr)
    return 0
