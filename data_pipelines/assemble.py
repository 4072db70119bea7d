"""What the tasks of a build have left, put together and into place."""

import collections
import dataclasses
import itertools
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
from .dropped_rows import DROPPED, DROPPED_FOLDER
from .engine import Done
from .report import REPORT_PAGE, write_report
from .tables import DOCUMENTS, DOCUMENTS_FOLDER

REPORT = "report.json"


@dataclasses.dataclass(kw_only=True)
class MadeSource:
    """What the tasks of one source have left so far.

    Attributes:
        account: What was left out.
        passages: How much came through each place.
        duplicate_groups: Pairs: documents that are near duplicates of one another, and how many
            groups there are of so many.
        num_files: Raw files.
        raw_bytes: Of them.
        documents: Tasks that wrote the buckets of cleaned documents.
        splits: Tasks that wrote the shards of each split.
        dropped: Files with rows of what was left out, by their names without the source's.
    """

    account: Dropped = dataclasses.field(default_factory=Dropped)
    passages: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    duplicate_groups: list[list[int]] = dataclasses.field(default_factory=list)
    num_files: int = 0
    raw_bytes: int = 0
    documents: list[Done] = dataclasses.field(default_factory=list)
    splits: dict[str, list[Done]] = dataclasses.field(default_factory=dict)
    dropped: dict[str, Path] = dataclasses.field(default_factory=dict)

    def take_account(self, step: str, tasks: list[Done]) -> None:
        """Adds what the tasks of one step have told."""
        results = [task.result for task in tasks]
        for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
            if result.get("dropped", {}).get("counts"):
                self.dropped[f"{step}-{number:05d}.parquet"] = task.folder / DROPPED
            if "dropped" in result:
                self.account.merge(result["dropped"])
            self.duplicate_groups += result.get("group_sizes", [])
            self.num_files += result.get("files", 0)
            self.raw_bytes += result.get("raw_bytes", 0)
        passages = (result["passages"] for result in results if "passages" in result)
        for at_place in zip(*passages, strict=True):
            self.passages.append(
                {
                    "name": at_place[0]["name"],
                    "documents": sum(passage["documents"] for passage in at_place),
                    "text_bytes": sum(passage["text_bytes"] for passage in at_place),
                }
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What the tasks of a build have left.

    Attributes:
        tokenizer: The task that made it.
        sources: The others, by source.
        worker_deaths: Of each process that died, the tasks that it may have been at work on, and
            that were run again.
    """

    tokenizer: Done
    sources: dict[str, MadeSource]
    worker_deaths: list[list[str]]


def assemble(config: BuildConfig, made: Made, staging: Path, out: Path) -> dict[str, Any]:
    """Puts a dataset together in `staging`, then into `out`, `build.json` last.

    Returns:
        The contents of `build.json`.
    """
    shutil.rmtree(staging, ignore_errors=True)
    for folder in (DOCUMENTS_FOLDER, DROPPED_FOLDER):
        (staging / folder).mkdir(parents=True)
    tokenizer = made.tokenizer.result
    link(made.tokenizer.folder / tokenizer["file"], staging / tokenizer["file"])
    sources = {}
    for name, source in made.sources.items():
        for number, bucket in enumerate(source.documents):
            file = f"{name}-{number:05d}-of-{len(source.documents):05d}.parquet"
            link(bucket.folder / DOCUMENTS, staging / DOCUMENTS_FOLDER / file)
        for file, path in source.dropped.items():
            link(path, staging / DROPPED_FOLDER / f"{name}-{file}")
        manifest = _merge(name, source.splits, tokenizer, staging / name)
        sources[name] = _describe(manifest, source.account)
    summary = {
        "config": json.loads(to_json(config)),
        "tokenizer": tokenizer,
        "sources": sources,
        "worker_deaths": made.worker_deaths,
    }
    (staging / BUILD).write_text(json.dumps(summary, indent=2) + "\n")
    report = _report(summary, made)
    (staging / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    write_report(report, staging / REPORT_PAGE)
    # Shards cannot be opened without a tokenizer: it goes first and comes after them.
    for name in (SENTENCEPIECE_NAME, TIKTOKEN_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (*sources, DOCUMENTS_FOLDER, DROPPED_FOLDER):
        shutil.rmtree(out / name, ignore_errors=True)
        (staging / name).rename(out / name)
    for name in (tokenizer["file"], REPORT, REPORT_PAGE, BUILD):
        (staging / name).rename(out / name)
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


def _describe(manifest: Manifest, dropped: Dropped) -> dict[str, Any]:
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
        "dropped": dict(sorted(dropped.counts.items())),
        "dropped_examples": dict(sorted(dropped.examples.items())),
    }


def _report(summary: dict[str, Any], made: Made) -> dict[str, Any]:
    """What `report.json` holds: `build.json`, and all that tasks have told."""
    tokens = {
        name: source["splits"]["train"]["tokens"] for name, source in summary["sources"].items()
    }
    wanted = dict(summary["config"]["mixture"])
    return {
        "name": summary["config"]["name"],
        "config": summary["config"],
        "tokenizer": summary["tokenizer"],
        "worker_deaths": made.worker_deaths,
        "mixture": {"wanted": _shares(wanted) if wanted else None, "tokens": _shares(tokens)},
        "sources": {
            name: _report_source(made.sources[name]) | {"splits": source["splits"]}
            for name, source in summary["sources"].items()
        },
    }


def _report_source(made: MadeSource) -> dict[str, Any]:
    account = made.account
    languages: collections.Counter[str] = collections.Counter()
    lengths: dict[str, list[int]] = {}
    for split, tasks in made.splits.items():
        columns = itertools.zip_longest(*(t.result["lengths"] for t in tasks), fillvalue=0)
        lengths[split] = [sum(column) for column in columns]
        for task in tasks:
            languages.update(task.result["languages"])
    return {
        "files": made.num_files,
        "raw_bytes": made.raw_bytes,
        "passages": made.passages,
        "dropped": {
            reason: {
                "count": count,
                "text_bytes": account.text_bytes[reason],
                "examples": [
                    {"id": name, "text": text}
                    for name, text in zip(
                        account.examples[reason], account.excerpts[reason], strict=True
                    )
                ],
            }
            for reason, count in account.counts.most_common()
        },
        "num_bad": account.num_bad,
        "bad": account.bad,
        "notes": {table: dict(rows.most_common()) for table, rows in account.notes.items()},
        "lengths": lengths,
        "languages": dict(languages.most_common()),
        "duplicate_groups": made.duplicate_groups,
    }


def _shares(amounts: dict[str, float]) -> dict[str, float]:
    total = sum(amounts.values())
    return {name: amount / total for name, amount in amounts.items()}
