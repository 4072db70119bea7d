"""Real documents of several kinds, and how fast one core takes them through something."""

import dataclasses
import gzip
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What is measured."""

    corpora: Path = CORPORA
    """Folder with `wikipedia`, `books`, `commoncrawl`, `github` and `eval`."""
    documents: int = 2000
    """Documents, a quarter of each kind where there are enough."""
    rounds: int = 3
    """Rounds, of which the best counts."""
    json: bool = False
    """Print one JSON document."""

    def texts(self) -> list[str]:
        """The documents; this process keeps to one core from here on."""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if not (texts := real_documents(self.corpora, self.documents)):
            print(f"--corpora {self.corpora}: no documents there; nothing is measured.")
        return texts

    def rate(self, name: str, texts: list[str], run: Callable[[list[str]], object]) -> "Rate":
        """The best of several rounds over the same texts."""
        size = sum(len(text.encode()) for text in texts) / 1e6
        wall, cpu = float("inf"), float("inf")
        for _ in range(self.rounds):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            run(texts)
            wall = min(wall, time.perf_counter() - wall_start)
            cpu = min(cpu, time.process_time() - cpu_start)
        return Rate(name, size / wall, size / cpu)

    def report(self, texts: list[str], rates: list["Rate"], ratios: dict[str, str]) -> None:
        """A line for each rate, and for each pair of rates, by name, their ratio."""
        if self.json:
            print(json.dumps([dataclasses.asdict(rate) for rate in rates], indent=2))
            return
        size = sum(len(text.encode()) for text in texts) / 1e6
        print(f"one core, {len(texts)} documents, {size:.1f} MB; MB/s, best of {self.rounds}")
        print(f"{'':38} {'wall':>7} {'CPU':>7}")
        by_name = {rate.name: rate for rate in rates}
        for rate in rates:
            print(f"{rate.name:38} {rate.wall:7.2f} {rate.cpu:7.2f}")
        for peer, ours in ratios.items():
            if peer in by_name:
                one, two = by_name[ours], by_name[peer]
                label = f"ratio to {peer}"
                print(f"{label:38} {one.wall / two.wall:7.1f} {one.cpu / two.cpu:7.1f}")
            else:
                print(f"{peer} is not installed here: no ratio.")


@dataclasses.dataclass(frozen=True)
class Rate:
    """Megabytes of UTF-8 a second."""

    name: str
    wall: float
    cpu: float


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
