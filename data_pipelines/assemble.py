"""What the tasks of a build have left, put together and into place."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from llama_jax.atomic import link
from llama_jax.config import BuildConfig
from llama_jax.data.shard_writer import merge_splits, write_manifest
from llama_jax.data.shards import BUILD, Manifest, split_from_json
from llama_jax.data.tokenizer import SENTENCEPIECE_NAME, TIKTOKEN_NAME
from llama_jax.recipe import to_json

from .document import Dropped
from .engine import Done
from .tables import DOCUMENTS, DOCUMENTS_FOLDER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What the tasks of a build have left.

    Attributes:
        tokenizer: The task that made it.
        documents: Buckets of cleaned documents of each source.
        splits: Tasks that wrote the shards of each source and split.
        accounts: What was left out of each source.
        passages: How much of each source came through each place.
    """

    tokenizer: Done
    documents: dict[str, list[Done]]
    splits: dict[str, dict[str, list[Done]]]
    accounts: dict[str, Dropped]
    passages: dict[str, list[dict[str, Any]]]


def assemble(config: BuildConfig, made: Made, staging: Path, out: Path) -> dict[str, Any]:
    """Puts a dataset together in `staging`, then into `out`, `build.json` last.

    Returns:
        The contents of `build.json`.
    """
    shutil.rmtree(staging, ignore_errors=True)
    (staging / DOCUMENTS_FOLDER).mkdir(parents=True)
    tokenizer = made.tokenizer.result
    link(made.tokenizer.folder / tokenizer["file"], staging / tokenizer["file"])
    sources = {}
    for name, buckets in made.documents.items():
        for number, bucket in enumerate(buckets):
            file = f"{name}-{number:05d}-of-{len(buckets):05d}.parquet"
            link(bucket.folder / DOCUMENTS, staging / DOCUMENTS_FOLDER / file)
        manifest = _merge(name, made.splits[name], tokenizer, staging / name)
        sources[name] = _describe(manifest, made, name)
    summary = {
        "config": json.loads(to_json(config)),
        "tokenizer": tokenizer,
        "sources": sources,
    }
    (staging / BUILD).write_text(json.dumps(summary, indent=2) + "\n")
    # Shards cannot be opened without a tokenizer: it goes first and comes after them.
    for name in (SENTENCEPIECE_NAME, TIKTOKEN_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (*sources, DOCUMENTS_FOLDER):
        shutil.rmtree(out / name, ignore_errors=True)
        (staging / name).rename(out / name)
    (staging / tokenizer["file"]).rename(out / tokenizer["file"])
    (staging / BUILD).rename(out / BUILD)
    return summary


def _merge(
    name: str, splits: dict[str, list[Done]], tokenizer: dict[str, Any], folder: Path
) -> Manifest:
    folder.mkdir()
    manifest = Manifest(
        name=name,
        tokenizer_sha256=tokenizer["sha256"],
        vocab_size=tokenizer["vocab_size"],
        splits={
            split: merge_splits(
                [(done.folder, split_from_json(done.result["split"])) for done in tasks],
                folder,
                name,
                split,
            )
            for split, tasks in splits.items()
        },
    )
    write_manifest(folder, manifest)
    return manifest


def _describe(manifest: Manifest, made: Made, name: str) -> dict[str, Any]:
    dropped = made.accounts[name]
    return {
        "splits": {
            split: {
                "documents": counts.num_documents,
                "tokens": counts.num_tokens,
                "text_bytes": counts.text_bytes,
                "shards": len(counts.shards),
            }
            for split, counts in manifest.splits.items()
        },
        "passages": made.passages[name],
        "dropped": dict(sorted(dropped.counts.items())),
        "dropped_examples": dict(sorted(dropped.examples.items())),
    }
