"""`llama-jax convert from-hf`: weights of the PyTorch world become a run's folder."""

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from llama_jax import __version__
from llama_jax.cli.convert.moments import begin_state, copy_moments, resume_state, with_moments
from llama_jax.cli.convert.tensor_copier import Copier
from llama_jax.config import (
    AdamW,
    ComputeConfig,
    Cosine,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from llama_jax.checkpoint.layers import Layered
    from llama_jax.convert.hugging_face_import import Import
    from llama_jax.convert.moments_import import ImportedMoments
    from llama_jax.convert.result_folder import Unfinished

_DESCRIPTION = """Imports a LLaMA that transformers saved as a run's folder with one checkpoint,
which `eval`, `generate`, `train --init-from` and `convert to-hf` read. The folder is complete or
absent; an import that was stopped goes on when it is started again.

Weights keep their dtype and their bytes. What is not understood in full is refused by name.

example:
  llama-jax convert from-hf Llama-2-7b-hf imported
  llama-jax convert from-hf tuned_in_pytorch imported --optimizer
  llama-jax generate imported --prompt "The capital of France"
  llama-jax train llama2_7b --init-from imported --run-dir tuned --data.directory DIR"""

TRAINING_CONFIG = "training_config.json"
TOKENIZERS = ("tokenizer.model", "original/tokenizer.model", "tokenizer.tiktoken")


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

    hf_dir: Positional[Path]
    out_dir: Positional[Path]
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


def print_plan(
    plan: "Import",
    out_dir: Path,
    as_json: bool,
    *,
    bytes_at_once: int = 0,
    optimizer: bool = False,
) -> int:
    """Tells what an import takes.

    Args:
        plan: Of the import.
        out_dir: Where it would go.
        as_json: Whether to print one JSON document, too.
        bytes_at_once: What threads hold beside a few pieces.
        optimizer: Whether moments are imported, too.
    """
    from llama_jax.convert.forecast import forecast

    size = plan.num_bytes
    expected = forecast(plan.model, size, size, out_dir, bytes_at_once=bytes_at_once)
    if optimizer:
        expected = with_moments(expected)
    if as_json:
        print(json.dumps(dataclasses.asdict(expected)))
    print(expected, file=sys.stderr)
    return 0


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


def write_run(
    plan: "Import",
    config: RunConfig,
    out_dir: Path,
    kind: str,
    moments: "ImportedMoments | None" = None,
    *,
    words: tuple[str, ...] = (),
    left_behind: Sequence[str] = (),
) -> None:
    """Writes the run's folder of an import: complete, or absent.

    Args:
        plan: What is imported.
        config: Of the run.
        out_dir: Its folder.
        kind: The command's name.
        moments: Of the weights.
        words: Files beside them that are kept as they are.
        left_behind: Files beside them that are not.
    """
    from llama_jax.convert.result_folder import result_folder
    from llama_jax.convert.words import keep_words
    from llama_jax.recipe import to_json

    request = {"conversion": kind, "made_by": __version__, "source": plan.identity()}
    request |= {"optimizer": moments and moments.identity()}
    with result_folder(out_dir, request, on_known=tell_kept) as unfinished:
        (unfinished.folder / "config.json").write_text(to_json(config))
        keep_words(plan.folder, words, unfinished.folder)
        _copy_tokenizer(plan, words, unfinished.folder)
        _write_checkpoint(plan, config, unfinished, kind, moments, left_behind)


def _write_checkpoint(
    plan: "Import",
    config: RunConfig,
    unfinished: "Unfinished",
    kind: str,
    moments: "ImportedMoments | None",
    left_behind: Sequence[str],
) -> None:
    from llama_jax.checkpoint import layers
    from llama_jax.convert.certificate import read_certificate, write_certificate
    from llama_jax.observe.progress import Progress
    from llama_jax.recipe import to_json

    arrays = _arrays(plan)
    begun = begin_state(arrays) if moments is None else resume_state(arrays, moments, config)
    every_array = [*arrays.values(), *begun.arrays]
    run_dir, step = unfinished.folder, begun.counters["step"]
    saving, final = (run_dir / "checkpoints" / name for name in (f"{step}.saving", f"{step}"))
    if final.exists():
        # An earlier start was stopped after the rename, and before the end.
        final.rename(saving)
    saving.mkdir(parents=True, exist_ok=True)
    layers.describe(saving, every_array)
    begun.write_counts(saving)
    certificate = (plan.beside and read_certificate(plan.beside)) or {}
    num_bytes = plan.num_bytes + sum(part.num_bytes for part, _ in begun.moments.values())
    with Progress("import", total=num_bytes, unit="bytes") as progress:
        copier = Copier(unfinished, step, progress.advance)
        tensors = copier.copy(plan, arrays, certificate.get("tensors", {}))
        optimizer = copy_moments(copier, begun, certificate)
    origin = {
        "conversion": kind,
        "folder": str(plan.folder.absolute()),
        "config": plan.config,
        "vocab_size": plan.vocab_size,
        "step": step,
        "tokens": begun.counters["tokens"],
        "has_training_config": (plan.folder / TRAINING_CONFIG).is_file(),
        "source": certificate.get("source"),
    }
    meta = begun.counters | {"imported": origin, "origin": None}
    meta |= {"config": json.loads(to_json(config))}
    layers.commit(saving, final, step=step, meta=meta, arrays=every_array, files=copier.files)
    facts = {
        "conversion": kind,
        "made_by": f"llama_jax {__version__}",
        "source": origin | {"left_out": list(plan.left_out), "left_behind": list(left_behind)},
        "verified_source": bool(certificate.get("tensors")),
    }
    known = copier.digests
    write_certificate(run_dir, known=known, tensors=tensors, facts=facts | optimizer)


def tell_kept(count: int) -> None:
    """Tells people that an earlier start is gone on with."""
    print(f"an earlier start wrote {count:,} parts; they are compared and kept", file=sys.stderr)


def _arrays(plan: "Import") -> dict[str, "Layered"]:
    from llama_jax.checkpoint.layers import Layered
    from llama_jax.convert import mapping

    shapes, dtypes = mapping.our_shapes(plan.model), plan.dtypes()
    return {
        pair.ours: Layered(
            name=f"params.{pair.ours}",
            shape=shapes[pair.ours],
            dtype=dtypes[pair.ours],
            order=mapping.storage_order(pair),
            stacked="L" in pair.our_axes.split(),
        )
        for pair in mapping.pairs_of(plan.model)
    }


def run_config(name: str, model: ModelConfig, path: Path | None = None) -> RunConfig:
    """The config of a run: that of `path`, if there is such a file, or one that tells nothing.

    Args:
        name: Of the run.
        model: Of the run.
        path: Of the config that an export of ours has.

    Raises:
        ValueError: If that is of another model.
    """
    from llama_jax.recipe import from_json

    if path is not None and path.is_file():
        config = from_json(path.read_text(encoding="utf-8"))
        if dataclasses.replace(config.model, vocab_size=model.vocab_size) != model:
            raise ValueError(
                f"{path} is of another model than config.json; remove it to import without it."
            )
        return dataclasses.replace(config, model=model)
    seq_len = min(model.max_seq_len, 2048)
    return RunConfig(
        name=name or "imported",
        model=model,
        data=DataConfig(seq_len=seq_len),
        compute=ComputeConfig(loss_chunks=math.gcd(seq_len, ComputeConfig().loss_chunks)),
        train=TrainConfig(num_steps=1, batch_size=1),
        optimizer=AdamW(peak_lr=3e-4),
        schedule=Cosine(warmup_steps=0),
    )


def _copy_tokenizer(plan: "Import", words: tuple[str, ...], run_dir: Path) -> None:
    from llama_jax.convert.words import has_tokenizer
    from llama_jax.data.tokenizer import load_tokenizer

    for name in TOKENIZERS if plan.beside is not None else ():
        if (source := plan.folder / name).is_file():
            kind = load_tokenizer(source).kind
            target = "tokenizer.tiktoken" if kind == "tiktoken" else "tokenizer.model"
            shutil.copyfile(source, run_dir / target)
            return
    kept = "; that of transformers is kept for `to-hf`" if has_tokenizer(words) else ""
    print(
        f"note: {plan.folder} has no tokenizer.model{kept}; text here needs the original tokenizer "
        "(SentencePiece or tiktoken), copied into the run's folder",
        file=sys.stderr,
    )


def check_disk(out_dir: Path, num_bytes: int) -> None:
    """Raises ValueError if a folder's disk has less room, what an earlier start wrote included."""
    from llama_jax.convert.result_folder import bytes_written

    there = next(
        path for path in (out_dir.absolute(), *out_dir.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(there).free + bytes_written(out_dir)
    if free < num_bytes:
        raise ValueError(
            f"OUT_DIR={str(out_dir)!r}: {num_bytes:,} bytes are needed, {free:,} are free; make "
            "room, or name a folder on another disk."
        )
