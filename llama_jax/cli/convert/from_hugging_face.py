"""`llama-jax convert from-hf`: weights of the PyTorch world become a run's folder."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert.imported_run import (
    TOKENIZERS,
    TRAINING_CONFIG,
    print_plan,
    run_config,
    write_run,
)
from llama_jax.cli.convert.results import check_disk

if TYPE_CHECKING:
    from llama_jax.convert.hugging_face_import import Import
    from llama_jax.convert.moments_import import ImportedMoments

_DESCRIPTION = """Imports a LLaMA that transformers saved as a run's folder with one checkpoint,
which `eval`, `generate`, `train --init-from` and `convert to-hf` read. The folder is complete or
absent; an import that was stopped goes on when it is started again.

Weights keep their dtype and their bytes. What is not understood in full is refused by name.

example:
  llama-jax convert from-hf Llama-2-7b-hf imported
  llama-jax convert from-hf tuned_in_pytorch imported --optimizer
  llama-jax generate imported --prompt "The capital of France"
  llama-jax train llama2_7b --init-from imported --run-dir tuned --data.directory DIR"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to import, and to where.

    Attributes:
        hf_dir: Folder with config.json and safetensors files.
        out_dir: Folder to write; must be absent or empty.
        optimizer: Whether to import AdamW's moments too, so that training goes on with them.
        pad_vocab_to_multiple: Rows of zeros fill the vocabulary's tables up to a multiple of it,
            so that more devices can split them. They leave again with `to-hf`.
        check: Whether to compare the result with its source: weights bit by bit, logits with those
            of transformers on real text. Needs PyTorch, and memory for two layers in float32.
        dry_run: Whether to check everything but the values, say what it takes, and write nothing.
        json: Whether to print one JSON document.
    """

    hf_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="HF_DIR")]
    out_dir: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT_DIR")]
    optimizer: bool = False
    pad_vocab_to_multiple: int = 1
    check: bool = False
    dry_run: bool = False
    json: bool = False


def from_hugging_face(argv: list[str]) -> int:
    """Runs `convert from-hf`."""
    options = tyro.cli(
        Options, prog="llama-jax convert from-hf", description=_DESCRIPTION, args=argv
    )
    from llama_jax.convert.hugging_face_import import plan_import
    from llama_jax.convert.moments_import import plan_moments
    from llama_jax.convert.result_folder import check_out_dir
    from llama_jax.convert.transformers_program import require_transformers
    from llama_jax.convert.words import words_beside

    check_out_dir(options.out_dir)
    if options.check:
        require_transformers()
    plan = plan_import(options.hf_dir, pad_vocab_to_multiple=options.pad_vocab_to_multiple)
    moments = plan_moments(plan) if options.optimizer else None
    words = words_beside(options.hf_dir)
    check_disk(options.out_dir, plan.num_bytes + (moments.num_bytes if moments else 0))
    config = run_config(plan.name, plan.model, options.hf_dir / TRAINING_CONFIG)
    if moments is not None:
        config = moments.continued(config)
    if options.dry_run:
        return print_plan(plan, options.out_dir, options.json, optimizer=options.optimizer)
    left_behind = _left_behind(plan, words, moments)
    write_run(
        plan, config, options.out_dir, "from-hf", moments, words=words, left_behind=left_behind
    )
    facts = {
        "directory": str(options.out_dir),
        "parameters": sum(math.prod(tensor.shape) for tensor, _ in plan.tensors),
        "bytes": plan.num_bytes,
        "dtypes": sorted(set(plan.dtypes().values())),
        "left_out": list(plan.left_out),
        "left_behind": left_behind,
    }
    if options.json:
        print(json.dumps(facts))
    if left_behind:
        print(f"note: not of the model, left behind: {', '.join(left_behind)}", file=sys.stderr)
    print(
        f"{options.out_dir}: {facts['parameters']:,} parameters, {plan.num_bytes / 1e6:,.1f} MB of "
        f"{' and '.join(facts['dtypes'])}",
        file=sys.stderr,
    )
    if not options.check:
        return 0
    from llama_jax.cli.convert.check import check_result

    return check_result(options.out_dir, options.hf_dir, result=options.out_dir, step=None)


def _left_behind(
    plan: "Import", words: tuple[str, ...], moments: "ImportedMoments | None"
) -> list[str]:
    """Names in a folder that are neither read nor kept."""
    from llama_jax.convert.certificate import NAME
    from llama_jax.convert.moments import FOLDER
    from llama_jax.convert.safetensors_reader import INDEX

    read = {path.name for path in plan.files} | {INDEX, "config.json", TRAINING_CONFIG, NAME}
    read |= {Path(name).parts[0] for name in (*words, *TOKENIZERS)}
    read |= {FOLDER} if moments is not None else set()
    return sorted(
        path.name
        for path in plan.folder.iterdir()
        if path.name not in read and not path.name.startswith(".")
    )
