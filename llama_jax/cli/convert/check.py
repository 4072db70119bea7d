"""`llama-jax convert check`: whether two folders hold the same model."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert.checkpoint import (
    Checkpoint,
    open_checkpoint,
    open_run,
    vocabulary_rows,
)
from llama_jax.cli.run_reader import find_run_tokenizer, read_config
from llama_jax.config import ModelConfig, RunConfig
from llama_jax.observe.progress import Progress
from llama_jax.remote.objects import is_remote

if TYPE_CHECKING:
    import numpy as np

    from llama_jax.convert.hugging_face_import import Import
    from llama_jax.convert.programs import Program
    from llama_jax.convert.weights import Weights

_DESCRIPTION = """Compares two models bit by bit: folders of runs, of Hugging Face or of Meta, or
files of llama2.c. Files are compared with the certificates beside them first. Exit code 0: the
same, 1: not.

example:
  llama-jax convert check demo_run/model demo_run/hf
  llama-jax convert check demo_run/model demo_run/hf --logits --record"""
_NUM_TOKENS = 10_000
# Says the context of two models neither of which does; nothing is computed beyond it.
_ANY_MODEL = ModelConfig(
    num_layers=1, embed_dim=2, mlp_dim=1, num_heads=1, num_kv_heads=1, head_dim=2, vocab_size=1,
    max_seq_len=2048,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare.

    Attributes:
        first: Folder of a run, of a Hugging Face model or of Meta's files, or a file of llama2.c;
            a run may be in a bucket.
            What params.json leaves open of Meta's model is taken from the other one (of two such,
            the context is 2048).
        second: The other one.
        step: Of a run's checkpoint; the newest by default.
        dtype: To which a run's weights are rounded first, as `to-hf --dtype` does.
        logits: Whether to compare logits too: with those of transformers, or of Meta's model;
            needs PyTorch, and one folder that is theirs.
        record: Whether to write what comes out into the certificates beside them, as `--check` of a
            conversion does.
        json: Whether to print one JSON document.
    """

    first: Annotated[Positional[Path], tyro.conf.arg(metavar="A")]
    second: Annotated[Positional[Path], tyro.conf.arg(metavar="B")]
    step: int | None = None
    dtype: Literal["saved", "float32", "bfloat16"] = "saved"
    logits: bool = False
    record: bool = False
    json: bool = False


def check(argv: list[str]) -> int:
    """Runs `convert check`."""
    options = tyro.cli(Options, prog="llama-jax convert check", description=_DESCRIPTION, args=argv)
    from llama_jax.convert.certificate import add_checks, find_changed_files, read_certificate

    folders = first, second = tuple(
        open_run(place, options.step)[0] if is_remote(place) else place
        for place in (options.first, options.second)
    )
    changed = [
        f"{folder}: {problem}"
        for folder in folders
        if folder.is_dir() and read_certificate(folder) is not None
        for problem in find_changed_files(folder)
    ]
    certified = [folder for folder in (options.first, options.second) if _is_certified(folder)]
    if options.record and not certified:
        raise ValueError(
            f"--record: neither {options.first} nor {options.second} has a certificate.json in a "
            "folder of a file system; leave it out."
        )
    dtype = None if options.dtype == "saved" else options.dtype
    checks = run_checks(first, second, step=options.step, logits=options.logits, dtype=dtype)
    checks = {"changed_files": changed} | checks
    for folder in certified if options.record and not changed else ():
        add_checks(folder, checks)
    if options.json:
        print(json.dumps(checks))
    for problem in changed:
        print(problem, file=sys.stderr)
    return report(checks) or int(bool(changed))


def _is_certified(folder: Path) -> bool:
    from llama_jax.convert.certificate import read_certificate

    return not is_remote(folder) and folder.is_dir() and read_certificate(folder) is not None


def run_checks(
    first: Path, second: Path, *, step: int | None, logits: bool, dtype: str | None = None
) -> dict[str, Any]:
    """Compares weights, and logits where asked to; see `llama_jax.convert.agreement`."""
    from llama_jax.convert.agreement import compare_weights

    if _is_meta(first):
        theirs = open_weights(second, step, dtype)
        ours = open_weights(first, like=theirs.model)
    else:
        ours = open_weights(first, step, dtype)
        theirs = open_weights(second, step, dtype, like=ours.model)
    program = _reference((second, first), ours.model) if logits else None
    total = len(ours.dtypes.keys() | theirs.dtypes.keys())
    checks: dict[str, Any] = {"folders": [str(first), str(second)]}
    with Progress("compare weights", total=total, unit="tensors") as progress:
        checks["weights"] = compare_weights(ours, theirs, progress.advance)
    if program is not None:
        tokens, text = _tokens(first, second, ours.model.vocab_size)
        found = _compare_logits(ours, program, tokens)
        checks["logits"] = {"reference": program.name, "text": text} | found
    return checks


def _compare_logits(ours: "Weights", theirs: "Program", tokens: "np.ndarray") -> dict[str, Any]:
    from llama_jax.convert.agreement import compare_logits, rows_of

    rows, done = rows_of(ours.model, tokens), itertools.count(1)
    total = len(rows) * (ours.model.num_layers + 1)
    with Progress("compare logits", total=total, unit="rows of layers") as progress:
        return compare_logits(ours, theirs, rows, lambda: progress.advance(next(done)))


def _reference(folders: tuple[Path, ...], model: ModelConfig) -> "Program":
    """The other program that runs one of the folders.

    Raises:
        ValueError: If there is none, or it cannot be run here.
    """
    for folder in folders:
        if _is_hugging_face(folder):
            from llama_jax.convert.transformers_program import TransformersProgram

            return TransformersProgram(folder)
        if _is_meta(folder):
            from llama_jax.convert.meta_program import MetaProgram

            return MetaProgram(folder, model)
    raise ValueError("--logits: neither folder is one that transformers loads, or Meta's.")


def check_result(
    first: Path, second: Path, *, result: Path, step: int | None, dtype: str | None = None
) -> int:
    """Checks a conversion that was just made, and writes what came out into its certificate.

    Args:
        first: Folder of the run.
        second: Folder that transformers loads, or Meta's.
        result: That of the two which has the certificate.
        step: Of the run's checkpoint.
        dtype: To which the run's weights were rounded; None for none.
    """
    from llama_jax.convert.certificate import add_checks

    checks = run_checks(first, second, step=step, logits=True, dtype=dtype)
    add_checks(result, checks)
    return report(checks)


def report(checks: dict[str, Any]) -> int:
    """Tells people what the checks found.

    Returns:
        0 where all is well, 1 where not.
    """
    weights, logits = checks["weights"], checks.get("logits")
    shown = "; ".join(weights["different"][:3])
    verdict = "identical bit by bit" if weights["identical"] else f"different: {shown}"
    print(f"weights: {weights['tensors']} tensors, {verdict}", file=sys.stderr)
    if logits is not None:
        print(
            f"logits: {logits['tokens']:,} tokens of {logits['text']}, at most "
            f"{logits['max_abs_logit_difference']:.2g} apart, KL {logits['max_kl_nats']:.2g} nats, "
            f"{logits['argmax_agreement']:.2%} the same best token; {_verdict(logits)}",
            file=sys.stderr,
        )
    return int(not (weights["identical"] and (logits is None or logits["agrees"])))


def _verdict(logits: dict[str, Any]) -> str:
    judged = ""
    if (exact := logits["float64"]) is not None:
        judged = (
            f"from float64, ours are {exact['ours']:.2g}, theirs {exact['theirs']:.2g} and those "
            f"of float32 alone {exact['float32']:.2g} (allowed: {exact['allowed']:.2g}): "
        )
    where = logits["first_layer_that_differs"]
    return judged + ("they agree" if where is None else f"they differ, first after {where}")


def open_weights(
    folder: Path,
    step: int | None = None,
    dtype: str | None = None,
    *,
    like: ModelConfig | None = None,
) -> "Weights":
    """The tensors of a folder in the Hugging Face layout, whatever its own is.

    Args:
        folder: Of a run, of a Hugging Face model or of Meta's files; or a file of llama2.c.
        step: Of a run's checkpoint; the newest by default.
        dtype: To which a run's weights are rounded; None for none.
        like: Says what `params.json` may leave open: the context, and how far RoPE is stretched.

    Raises:
        ValueError: If the folder holds no model that can be read.
    """
    from llama_jax.convert.weights import Weights

    if not (folder / "checkpoints").exists():
        plan = _plan(folder, like)
        stored = {tensor.name: where for tensor, where in plan.tensors}
        dtypes = {name: where.dtype for name, where in stored.items()}
        return Weights(model=plan.model, dtypes=dtypes, read=lambda name: plan.read(stored[name]))
    config = read_config(folder)
    saved = open_checkpoint(folder, config, step)
    return weights_of(folder, config, saved, dtype)


def weights_of(
    run_dir: Path, config: RunConfig, saved: Checkpoint, dtype: str | None, *, verify: bool = True
) -> "Weights":
    """The tensors of a run's checkpoint, rounded to a dtype if one is given, as Hugging Face's.

    `verify=False` leaves checksums of files that are copied as they are to `check_copies`.
    """
    from llama_jax.convert import mapping
    from llama_jax.convert.hugging_face import read_tensor
    from llama_jax.convert.weights import Weights

    rows = vocabulary_rows(run_dir, config, saved.meta)
    model = dataclasses.replace(config.model, vocab_size=rows)
    tensors = {tensor.name: tensor for tensor in mapping.tensors_of(model)}

    dtypes = {
        name: dtype or saved.params[tensor.pair.ours].dtype for name, tensor in tensors.items()
    }

    def read(name: str) -> Iterator[memoryview]:
        ours = saved.params[tensors[name].pair.ours]
        return read_tensor(tensors[name], ours, dtypes[name], verify=verify)

    return Weights(model=model, dtypes=dtypes, read=read)


def _plan(folder: Path, like: ModelConfig | None) -> "Import":
    if folder.is_file():
        from llama_jax.convert.llama2c import plan_llama2c_import

        return plan_llama2c_import(folder)
    if not _is_meta(folder):
        from llama_jax.convert.hugging_face_import import plan_import

        return plan_import(folder)
    from llama_jax.convert import meta
    from llama_jax.convert.meta_import import plan_meta_import

    said = meta.read_json(folder / "params.json")
    return plan_meta_import(folder, **meta.filled_in(said, like or _ANY_MODEL))


def _tokens(first: Path, second: Path, vocab_size: int) -> "tuple[np.ndarray, str]":
    """Ids to compare logits on: English prose of the Python manual, or random ones."""
    import pydoc_data.topics

    import numpy as np

    from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

    for folder in (first, second):
        try:
            path = (
                find_tokenizer(folder)
                if not (folder / "checkpoints").exists()
                else find_run_tokenizer(folder, read_config(folder))
            )
        except ValueError:
            continue
        text = "\n".join(pydoc_data.topics.topics.values())
        ids = load_tokenizer(path).encode(text[: 10 * _NUM_TOKENS], bos=True)[:_NUM_TOKENS]
        if ids.max() < vocab_size:
            return ids, "the Python manual"
    return np.random.default_rng(0).integers(0, vocab_size, _NUM_TOKENS), "random ids"


def _is_hugging_face(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "checkpoints").exists()


def _is_meta(folder: Path) -> bool:
    return (folder / "params.json").is_file()
