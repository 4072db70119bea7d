"""Train a quality classifier."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.cli.pipelines import load_pipelines
from llama_jax.config import (
    ArxivSource,
    BooksSource,
    CommonCrawlSource,
    FilesSource,
    LanguageFilter,
    StackExchangeSource,
    WikipediaSource,
)

USAGE = """usage: llama-jax data classifier train --good PATH --bad PATH --out FILE [...]

Trains a linear model that tells good documents from others, for the filter QualityClassifier.
LLaMA-1 took pages that Wikipedia refers to as good ones, and random pages as the others.
A PATH is a file or folder of .txt, .md, .jsonl or .parquet; KIND:PATH reads raw files of a source:
wikipedia, common_crawl, books, stack_exchange, arxiv. --good wikipedia_references:DUMP takes those
pages of --bad whose addresses the articles of a dump refer to; the others stay --bad.

examples:
  llama-jax data classifier train --good wikipedia_references:enwiki.xml.bz2 \\
      --bad common_crawl:warc/ --language en --out quality.model
  llama-jax data classifier train --good references.jsonl --bad pages/ --out quality.model"""

_REFERENCES = "wikipedia_references"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `data classifier train`."""

    good: str
    """Documents that should score high."""
    bad: str
    """Documents that should score low."""
    out: Path
    """File to write."""
    language: str = ""
    """Take documents of this language alone, such as "en"; by default all. Without it, a model of
    sources in different languages tells languages apart and nothing else."""
    max_documents: int = 20_000
    """Documents of each kind at most, chosen by hash."""
    min_characters: int = 200
    """Shorter documents are left out."""
    num_features: int = 1 << 18
    """Weights; a power of two."""
    inverse_penalty: float = 1e4
    """C of the L2 penalty; higher fits the training documents more closely."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data classifier`."""
    if argv[:1] != ["train"]:
        asked = argv[:1] in (["-h"], ["--help"])
        if argv and not asked:
            raise ValueError(f"data classifier {argv[0]!r} is no command. There is: train.")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    prog = "llama-jax data classifier train"
    options = tyro.cli(_Options, prog=prog, description=USAGE, args=argv[1:])
    _check(options)
    training = load_pipelines("stages.classifier_training")
    kind, _, dump = options.good.partition(":")
    good, bad = _referred_to(dump, options) if kind == _REFERENCES else _of_two_kinds(options)
    print("training ...", file=sys.stderr)
    model = training.train(
        good.samples(),
        bad.samples(),
        num_features=options.num_features,
        inverse_penalty=options.inverse_penalty,
    )
    model.account["language"] = options.language
    options.out.parent.mkdir(parents=True, exist_ok=True)
    load_pipelines("stages.classifier").write_model(model, options.out)
    _print(model.account, options)
    return 0


def _check(options: _Options) -> None:
    if options.out.exists():
        raise ValueError(f"--out={options.out} exists; name a new file, or delete that one.")
    if options.num_features < 2 or options.num_features & (options.num_features - 1):
        raise ValueError(f"--num-features={options.num_features} must be a power of two.")
    for name in ("max_documents", "inverse_penalty"):
        if (value := getattr(options, name)) <= 0:
            raise ValueError(f"--{name.replace('_', '-')}={value} must be positive.")


def _of_two_kinds(options: _Options) -> tuple[Any, Any]:
    """Documents of --good and of --bad."""
    training = load_pipelines("stages.classifier_training")
    chosen = []
    for name in ("good", "bad"):
        print(f"reading {name} documents ...", file=sys.stderr)
        source = _source(name, options)
        are_pages = isinstance(source, FilesSource | CommonCrawlSource)
        choice = training.Choice(options.max_documents, are_pages=are_pages)
        for document in _documents(name, source, options):
            choice.add(document)
        chosen.append(choice)
    return chosen[0], chosen[1]


def _referred_to(dump: str, options: _Options) -> tuple[Any, Any]:
    """Pages of --bad at addresses that the articles of a dump refer to, and its other pages."""
    print("reading references ...", file=sys.stderr)
    dropped = load_pipelines("document").Dropped()
    source = WikipediaSource(name="good", path=dump)
    references = load_pipelines("stages.references").read_references(source, dropped)
    for damage in dropped.bad:
        print(f"--good: {damage}", file=sys.stderr)
    print("reading pages ...", file=sys.stderr)
    choice = load_pipelines("stages.classifier_training").Choice
    good, bad = choice(options.max_documents), choice(options.max_documents)
    num_pages = num_good = 0
    for page in _documents("bad", _source("bad", options), options):
        num_pages += bool(page.url)
        num_good += (is_good := page.url in references)
        (good if is_good else bad).add(page)
    if not num_pages:
        raise ValueError(
            f"--bad={options.bad}: no document has an address (url), so none is one that {dump} "
            "refers to; give web pages, such as common_crawl:warc/."
        )
    print(
        f"{num_good:,} of {num_pages:,} pages are at one of {len(references):,} addresses that "
        "articles refer to",
        file=sys.stderr,
    )
    return good, bad


def _source(name: str, options: _Options) -> Any:
    """The source that one of the options names."""
    kinds = {
        "wikipedia": WikipediaSource,
        "common_crawl": CommonCrawlSource,
        "books": BooksSource,
        "stack_exchange": StackExchangeSource,
        "arxiv": ArxivSource,
    }
    kind, _, path = getattr(options, name).partition(":")
    if kind in kinds:
        return kinds[kind](name=name, path=path)
    return FilesSource(name=name, path=getattr(options, name))


def _documents(name: str, source: Any, options: _Options) -> Iterator[Any]:
    """Documents of one kind, of the language asked for; what was left out is said on stderr."""
    sources, filters = load_pipelines("sources"), load_pipelines("stages.filters")
    dropped = load_pipelines("document").Dropped()
    wanted = [LanguageFilter(languages=(options.language,))] if options.language else []
    documents = sources.read_all(sources.open_source(source), dropped)
    for document in filters.apply_filters(filters.open_filters(wanted), documents, dropped):
        if len(document.text) >= options.min_characters:
            yield document
        else:
            dropped.add("too short", document.id)
    for reason, count in sorted(dropped.counts.items()):
        print(f"left out {count:,} of --{name}: {reason}", file=sys.stderr)


def _print(account: dict[str, Any], options: _Options) -> None:
    if options.json:
        print(json.dumps({"file": str(options.out)} | account, indent=2))
        return
    measured = account["held_out"]
    low, high = measured["auc_interval"]
    print(f"{options.out}: {account['good_documents']:,} good, {account['bad_documents']:,} others")
    print(
        f"held out: {measured['documents']:,} documents of {measured['groups']:,} sites; accuracy "
        f"{measured['accuracy']:.3f}, area under the curve {measured['auc']:.3f} (95% interval "
        f"{low:.3f} to {high:.3f})"
    )
