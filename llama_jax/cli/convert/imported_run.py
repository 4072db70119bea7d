"""The run's folder that an import writes, whatever layout it reads."""

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_jax import __version__
from llama_jax.cli.convert.moments import begin_state, copy_moments, resume_state, with_moments
from llama_jax.cli.convert.results import tell_kept, tell_plan
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

TRAINING_CONFIG = "training_config.json"
TOKENIZERS = ("tokenizer.model", "original/tokenizer.model", "tokenizer.tiktoken")


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
    return tell_plan(expected, as_json=as_json)


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
