"""Megabytes of text that one core measures and judges by all quality rules, against datatrove.

Command: python benchmarks/text_rules.py [--corpora FOLDER]

Everything runs in this process, pinned to one core, over the same real documents: articles, web
pages, pieces of books and source files. Ours computes every measure of every document. The peer
(where `datatrove[processing]` is installed) runs its four filters on each document until one
drops it, so it does less. Each rate is the best of several rounds, in wall time and in CPU time.
"""

import dataclasses
import gzip
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tyro

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.rules import RuleFilter
from llama_jax.config import C4Rules, FineWebRules, GopherQuality, GopherRepetition

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
ALL_RULES = (C4Rules(), GopherRepetition(), GopherQuality(), FineWebRules())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    corpora: Path = CORPORA
    """Folder with `wikipedia`, `books`, `commoncrawl` and `github`."""
    documents: int = 1000
    """Documents, a quarter of each kind where there are enough."""
    peer_documents: int = 200
    """Every n-th of them, so many, for the peer; it is slow."""
    rounds: int = 3
    """Rounds, of which the best counts."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """Megabytes of UTF-8 a second."""

    name: str
    wall: float
    cpu: float


def main(options: Options) -> None:
    """Measures and prints one line each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = real_documents(options.corpora, options.documents)
    if not texts:
        print(f"--corpora {options.corpora}: no documents there; nothing is measured.")
        return
    kinds = {"C4": ALL_RULES[:1], "Gopher repetition": ALL_RULES[1:2]}
    kinds |= {"Gopher quality": ALL_RULES[2:3], "FineWeb": ALL_RULES[3:], "all rules": ALL_RULES}
    rates = []
    for name, rules in kinds.items():
        rates.append(
            best_rate(name, texts, lambda texts, rules=rules: _ours(texts, rules), options.rounds)
        )
    if importlib.util.find_spec("datatrove") and importlib.util.find_spec("spacy"):
        few = texts[:: max(len(texts) // options.peer_documents, 1)]
        rates.append(best_rate("all rules, ours on the peer's sample", few, _ours, options.rounds))
        rates.append(best_rate("datatrove's four filters", few, _peer(), options.rounds))
    if options.json:
        print(json.dumps([dataclasses.asdict(rate) for rate in rates], indent=2))
        return
    print_rates(texts, rates, options.rounds)
    if rates[-1].name.startswith("datatrove"):
        print(
            f"{'ratio':38} {rates[-2].wall / rates[-1].wall:7.1f} "
            f"{rates[-2].cpu / rates[-1].cpu:7.1f}"
        )
    else:
        print("datatrove is not installed here: no ratio.")


def print_rates(texts: list[str], rates: list[Rate], rounds: int) -> None:
    """A line for each."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"one core, {len(texts)} documents, {size:.1f} MB; MB/s, best of {rounds}")
    print(f"{'':38} {'wall':>7} {'CPU':>7}")
    for rate in rates:
        print(f"{rate.name:38} {rate.wall:7.2f} {rate.cpu:7.2f}")


def real_documents(corpora: Path, count: int) -> list[str]:
    """Real texts of four kinds, the same each time."""
    kinds = [list(kind(corpora)) for kind in (_articles, _pages, _books, _code)]
    chosen = []
    for kind in kinds:
        chosen += kind[:: max(len(kind) * len(kinds) // count, 1)][: count // len(kinds)]
    # Kinds with too few leave room for others.
    rest = [text for kind in kinds for text in kind if text not in set(chosen)]
    step = max(len(rest) // max(count - len(chosen), 1), 1)
    return chosen + rest[::step][: count - len(chosen)]


def _articles(corpora: Path) -> Iterator[str]:
    for path in sorted(corpora.glob("wikipedia/pytorch+examples/*.txt")):
        for text in re.split(r"\n(?= = [^=])", path.read_text("utf-8")):
            if text.strip():
                yield text
    for path in sorted(corpora.glob("wikipedia/spencermountain+wtf_wikipedia/*.txt")):
        yield path.read_text("utf-8")


def _pages(corpora: Path) -> Iterator[str]:
    for path in sorted(corpora.glob("commoncrawl/extraction_gold/scrap*/ground-truth.json")):
        for page in json.loads(path.read_text("utf-8")).values():
            yield page["articleBody"]
    for path in sorted(corpora.glob("commoncrawl/built/*.wet.gz")):
        with gzip.open(path) as file:
            for record in file.read().split(b"\r\n\r\nWARC/1.0\r\n"):
                head, _, body = record.partition(b"\r\n\r\n")
                if b"WARC-Type: conversion" in head and body.strip():
                    yield body.decode("utf-8", "replace")


def _books(corpora: Path) -> Iterator[str]:
    for path in sorted(corpora.glob("books/*/*.txt")):
        text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
        for start in range(0, len(text), 40_000):
            yield text[start : start + 8_000]


def _code(corpora: Path) -> Iterator[str]:
    for path in sorted(corpora.glob("github/*.jsonl.gz")):
        with gzip.open(path) as file:
            for line in file:
                text = json.loads(line)["content"]
                if text.strip() and len(text) < 200_000:
                    yield text


def best_rate(name: str, texts: list[str], run: Callable[[list[str]], None], rounds: int) -> Rate:
    """The best of several rounds over the same texts."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    wall, cpu = float("inf"), float("inf")
    for _ in range(rounds):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        run(texts)
        wall = min(wall, time.perf_counter() - wall_start)
        cpu = min(cpu, time.process_time() - cpu_start)
    return Rate(name, size / wall, size / cpu)


def _ours(texts: list[str], rules: tuple = ALL_RULES) -> None:
    documents = (Document(str(number), text) for number, text in enumerate(texts))
    for _ in RuleFilter(rules).keep(documents, Dropped()):
        pass


def _peer() -> Callable[[list[str]], None]:
    from datatrove.data import Document as PeerDocument
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [
        C4QualityFilter(),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        FineWebQualityFilter(),
    ]

    def run(texts: list[str]) -> None:
        for number, text in enumerate(texts):
            document = PeerDocument(text=text, id=str(number))
            all(kind.filter(document) is True for kind in filters)

    return run


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
