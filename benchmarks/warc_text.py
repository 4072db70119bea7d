"""Megabytes of HTML a second from WARC files to filtered text, on one core.

Command: python benchmarks/warc_text.py [--archives FOLDER]

The archives are read as a build reads them: gzip, HTTP, characters, main content; then the
language is identified and the quality rules of C4, Gopher and FineWeb decide. Rates are the best of
several rounds, in CPU time, over the records' bytes of HTML before anything is dropped. The first
round also meets every word for the first time; a build does that once, however long it is.
"""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import tyro
from samples.texts import CORPORA

from data_pipelines.document import Document, Dropped
from data_pipelines.sources import open_source, read_all
from data_pipelines.sources.warc import warc_records
from data_pipelines.stages.filters import apply_filters, open_filters
from llama_jax.config import (
    C4Rules,
    CommonCrawlSource,
    Filter,
    FineWebRules,
    GopherQuality,
    GopherRepetition,
    LanguageFilter,
)

RULES = (GopherRepetition(), GopherQuality(), C4Rules(), FineWebRules())
KINDS: dict[str, tuple[Filter, ...]] = {
    "to text": (),
    "to text of any language, filtered": (LanguageFilter(languages=()), *RULES),
    "to English text, filtered": (LanguageFilter(), *RULES),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    archives: Path = CORPORA / "commoncrawl" / "built"
    """A folder of archives; those ending in .warc.gz are read."""
    max_archives: int = 1
    """Archives read, at most."""
    rounds: int = 3
    """Rounds, of which the best counts."""


def main(options: Options) -> None:
    """Prints a line for each archive and kind."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if not (paths := sorted(options.archives.glob("*.warc.gz"))[: options.max_archives]):
        print(f"skipped: no .warc.gz in {options.archives}; give a folder with --archives")
    for path in paths:
        with path.open("rb") as file:
            html_bytes = sum(len(each.block) for each in warc_records(file, path.name, Dropped()))
        print(f"{path.name}: {html_bytes / 1e6:.1f} MB of HTML; MB/s, first and best round")
        for name, filters in KINDS.items():
            seconds, kept = [], 0
            for _ in range(options.rounds):
                start = time.process_time()
                kept = sum(len(document.text.encode()) for document in _read(path, filters))
                seconds.append(time.process_time() - start)
            rates = [html_bytes / 1e6 / each for each in (seconds[0], min(seconds))]
            print(f"  {name:36} {rates[0]:6.1f} {rates[1]:6.1f}   {kept / 1e6:.1f} MB of text")


def _read(path: Path, filters: tuple[Filter, ...]) -> Iterator[Document]:
    source, dropped = open_source(CommonCrawlSource(path=str(path))), Dropped()
    return apply_filters(open_filters(filters), read_all(source, dropped), dropped)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
