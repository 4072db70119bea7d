"""How much of what pages are about becomes text, and how fast, on one core.

Command: python benchmarks/html_text.py [--gold FOLDER]

The gold pages are those of scrapinghub's article-extraction-benchmark, whose checkout `--gold`
names (ground-truth.json and html/); without it, those of them that are in the sample archives
beside the project. The score is that benchmark's own: runs of 4 words, counted as right, too many
or missing in each page; precision and recall averaged over pages. Beside ours: resiliparse's main
content, and trafilatura where it is installed. Rates are the best of several rounds, in CPU time,
over bytes of HTML; `warc_text.py` measures whole archives.
"""

import collections
import dataclasses
import gzip
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from data_pipelines.document import Dropped
from data_pipelines.sources import common_crawl
from data_pipelines.sources.html_text import html_to_text
from data_pipelines.sources.warc import warc_records

SAMPLES = Path(__file__).parents[2] / "shared/corpora/commoncrawl"
_TRUTH = "extraction_gold/scrapinghub+article-extraction-benchmark/ground-truth.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    gold: Path | None = None
    """A checkout of the gold pages; without it, those among the samples."""
    rounds: int = 3
    """Rounds, of which the best counts."""


def gold_pages(checkout: Path | None = None) -> dict[str, tuple[str, str]]:
    """HTML and expected text of gold pages by their keys; empty where the samples are absent."""
    if checkout is not None:
        truth = json.loads((checkout / "ground-truth.json").read_text())
        read = ((key, checkout / f"html/{key}.html.gz") for key in truth)
        html = {
            key: gzip.decompress(path.read_bytes()).decode(errors="replace") for key, path in read
        }
    elif not (SAMPLES / _TRUTH).is_file():
        return {}
    else:
        truth = json.loads((SAMPLES / _TRUTH).read_text())
        html = _sampled_pages()
    return {key: (html[key], truth[key]["articleBody"]) for key in sorted(html)}


def _sampled_pages() -> dict[str, str]:
    pages = {}
    for origins in sorted((SAMPLES / "built").glob("*.origins.tsv")):
        rows = [row.split("\t") for row in origins.read_text().splitlines()]
        keys = {row[0]: re.search(r":html/(\w+)\.html\.gz$", row[3]) for row in rows}
        archive = origins.with_name(origins.name.replace(".origins.tsv", ".warc.gz"))
        with archive.open("rb") as file:
            for record in warc_records(file, archive.name, Dropped()):
                if found := keys.get(record.url):
                    pages[found[1]] = common_crawl.page_html(record)
    return pages


def score(pairs: list[tuple[str, str]]) -> tuple[float, float, float]:
    """F1, precision and recall of (expected, extracted) texts.

    Source: article-extraction-benchmark's evaluate.py: pages without any extracted text have no
    precision.
    """
    precisions, recalls = [], []
    for expected, extracted in pairs:
        wanted, found = _shingles(expected), _shingles(extracted)
        right = (wanted & found).total()
        if found:
            precisions.append(right / found.total())
        if wanted:
            recalls.append(right / wanted.total())
    precision, recall = statistics.mean(precisions), statistics.mean(recalls)
    return 2 * precision * recall / (precision + recall), precision, recall


def _shingles(text: str) -> collections.Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    runs = (tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3)))
    return collections.Counter(run for run in runs if run)


def _extractors() -> dict[str, Callable[[str], str]]:
    from resiliparse.extract.html2text import extract_plain_text

    found: dict[str, Callable[[str], str]] = {
        "ours": html_to_text,
        "resiliparse": lambda page: extract_plain_text(page, main_content=True),
        "resiliparse, no comments or dates": lambda page: extract_plain_text(
            page, main_content=True, comments=False, post_meta=False, alt_texts=False
        ),
    }
    try:
        import trafilatura  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("trafilatura is not installed: not measured")
    else:
        found["trafilatura, fast"] = lambda page: (
            trafilatura.extract(page, include_comments=False, fast=True) or ""
        )
    return found


def _best_seconds(rounds: int, run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _compare(pages: dict[str, tuple[str, str]], rounds: int) -> None:
    megabytes = sum(len(html.encode()) for html, _ in pages.values()) / 1e6
    print(f"{len(pages)} gold pages, {megabytes:.1f} MB of HTML")
    for name, extract in _extractors().items():
        f1, precision, recall = score([(text, extract(html)) for html, text in pages.values()])
        seconds = _best_seconds(
            rounds, lambda extract=extract: [extract(html) for html, _ in pages.values()]
        )
        print(
            f"{name:36} F1 {f1:.4f}  precision {precision:.4f}  recall {recall:.4f}  "
            f"{megabytes / seconds:6.1f} MB/s"
        )


def main(options: Options) -> None:
    """Prints a line for each extractor."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if pages := gold_pages(options.gold):
        _compare(pages, options.rounds)
    else:
        print("skipped: no gold pages beside the project; give a checkout of them with --gold")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
