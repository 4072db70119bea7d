"""From a recipe to a folder of token shards: complete, or not there yet."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from llama_jax.config import BuildConfig, TokenizerFile, TokenizerTraining
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.data.shards import BUILD, MANIFEST, Manifest
from llama_jax.data.tokenizer import SENTENCEPIECE_NAME, TIKTOKEN_NAME, Tokenizer, load_tokenizer
from llama_jax.recipe import differences, from_json, to_json

from .document import Dropped
from .sources import open_source, read_all
from .stages.filters import apply_filters, open_filters
from .stages.shuffle import Shuffle
from .stages.tokenize import tokenize
from .stages.write import write_shards

_WORK = ".build"


class Reporter(Protocol):
    """Is told how far a build is."""

    def stage(self, name: str, total_bytes: int | None) -> None:
        """A stage begins, over about so many bytes of text."""
        ...

    def advance(self, num_bytes: int) -> None:
        """The stage has done so many more."""
        ...


def build(config: BuildConfig, out: Path, reporter: Reporter) -> tuple[dict[str, Any], bool]:
    """Builds a dataset; one that is finished already is left as it is.

    All is written below `out/.build` and renamed into place at the end, `build.json` last, so that
    a build killed at any moment can be run again.

    Returns:
        The contents of `build.json`, and whether they were there already.

    Raises:
        ValueError: If `out` holds another dataset, a source is empty, or another build is at work.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        if (finished := _finished(config, out)) is not None:
            return finished, True
        work = out / _WORK
        shutil.rmtree(work, ignore_errors=True)
        _refuse_foreign(out)
        work.mkdir()
        summary = _build_into(config, work, reporter)
        (work / BUILD).write_text(json.dumps(summary, indent=2) + "\n")
        # Shards cannot be opened without a tokenizer: it goes first and comes after them.
        for name in (SENTENCEPIECE_NAME, TIKTOKEN_NAME):
            (out / name).unlink(missing_ok=True)
        for name in summary["sources"]:
            shutil.rmtree(out / name, ignore_errors=True)
            (work / name).rename(out / name)
        (work / summary["tokenizer"]["file"]).rename(out / summary["tokenizer"]["file"])
        (work / BUILD).rename(out / BUILD)
        shutil.rmtree(work)
        return summary, False


def _build_into(config: BuildConfig, work: Path, reporter: Reporter) -> dict[str, Any]:
    dropped = {source.name: Dropped() for source in config.sources}
    shuffles = {}
    for source in config.sources:
        account = dropped[source.name]
        opened = open_source(source)
        size = sum(file.expected_text_bytes() for file in opened.files())
        reporter.stage(f"collect {source.name}", size)
        shuffles[source.name] = Shuffle(work / f"{source.name}.documents", size_bytes=size)
        documents = apply_filters(open_filters(source.filters), read_all(opened, account), account)
        for num_bytes in shuffles[source.name].write(documents):
            reporter.advance(num_bytes)
        if not shuffles[source.name].num_documents:
            raise ValueError(_empty(source.name, dropped[source.name]))
    tokenizer = _tokenizer(config, work, shuffles, reporter)
    sources = {}
    for source in config.sources:
        shuffle, account = shuffles[source.name], dropped[source.name]
        reporter.stage(f"tokenize {source.name}", min(shuffle.num_bytes, source.max_bytes))
        documents = shuffle.read(max_bytes=source.max_bytes, dropped=account)
        manifest = None
        for item in write_shards(
            tokenize(documents, tokenizer, num_threads=os.cpu_count() or 1),
            work / source.name,
            source=source.name,
            tokenizer=tokenizer,
            held_out_fraction=config.held_out_fraction,
            shard_tokens=config.shard_tokens,
        ):
            if isinstance(item, Manifest):
                manifest = item
            else:
                reporter.advance(item.text_bytes)
        assert manifest is not None
        if not manifest.splits["train"].num_documents:
            raise ValueError(_empty(source.name, account))
        sources[source.name] = _describe(manifest, shuffle.num_documents, account)
        shuffle.remove()
    return {
        "config": json.loads(to_json(config)),
        "tokenizer": {
            "file": tokenizer.path.name,
            "kind": tokenizer.kind,
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
        },
        "sources": sources,
    }


def _tokenizer(
    config: BuildConfig, work: Path, shuffles: dict[str, Shuffle], reporter: Reporter
) -> Tokenizer:
    """Trains or copies the tokenizer into the build."""
    if isinstance(config.tokenizer, TokenizerFile):
        given = load_tokenizer(config.tokenizer.path)
        name = SENTENCEPIECE_NAME if given.kind == "sentencepiece" else TIKTOKEN_NAME
        shutil.copyfile(given.path, work / name)
        return load_tokenizer(work / name)
    reporter.stage("train the tokenizer", None)
    train_sentencepiece(
        _sample(config, config.tokenizer, shuffles),
        work / SENTENCEPIECE_NAME,
        vocab_size=config.tokenizer.vocab_size,
        num_threads=os.cpu_count() or 1,
    )
    return load_tokenizer(work / SENTENCEPIECE_NAME)


def _sample(
    config: BuildConfig, training: TokenizerTraining, shuffles: dict[str, Shuffle]
) -> Iterator[str]:
    """Training documents by hash, from each source as it is large."""
    sizes = {s.name: min(shuffles[s.name].num_bytes, s.max_bytes) for s in config.sources}
    share = min(training.sample_bytes / max(sum(sizes.values()), 1), 1.0)
    for name, size in sizes.items():
        for hashed in shuffles[name].read(max_bytes=int(size * share)):
            if not hashed.is_held_out(config.held_out_fraction):
                yield hashed.document.text


def _describe(manifest: Manifest, num_collected: int, dropped: Dropped) -> dict[str, Any]:
    return {
        "collected_documents": num_collected,
        "splits": {
            name: {
                "documents": split.num_documents,
                "tokens": split.num_tokens,
                "text_bytes": split.text_bytes,
                "shards": len(split.shards),
            }
            for name, split in manifest.splits.items()
        },
        "dropped": dict(sorted(dropped.counts.items())),
        "dropped_examples": dict(sorted(dropped.examples.items())),
    }


def _empty(name: str, dropped: Dropped) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.counts.most_common())
    return (
        f"sources.{name} is empty: no document is left for training"
        + (f" (left out: {reasons})." if reasons else ".")
        + " Give it more text, or lower build.held_out_fraction."
    )


def _finished(config: BuildConfig, out: Path) -> dict[str, Any] | None:
    """The finished build in `out`, if it is of this config."""
    path = out / BUILD
    if not path.is_file():
        return None
    summary = json.loads(path.read_text())
    before = from_json(json.dumps(summary["config"]), BuildConfig)
    if changes := differences(before, config):
        raise ValueError(
            f"--out {out} holds a dataset of another config: {'; '.join(changes)}. Build into "
            "another folder, or delete this one."
        )
    return summary


def _refuse_foreign(out: Path) -> None:
    """Refuses a folder in which a build would overwrite what no build has written."""
    ours = {_WORK, ".lock", SENTENCEPIECE_NAME, TIKTOKEN_NAME}
    foreign = [
        path.name
        for path in sorted(out.iterdir())
        if path.name not in ours and not (path / MANIFEST).is_file()
    ]
    if foreign:
        raise ValueError(
            f"--out {out} is not empty: it has {', '.join(foreign[:5])}. Build into a folder of "
            "its own."
        )


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    with (out / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"--out {out}: another build is writing there; wait for it."
            ) from error
        yield
