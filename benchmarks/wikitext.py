"""Megabytes of wikitext a second that one core turns into text.

Command: python benchmarks/wikitext.py [--dump FILE]

Everything runs in this process, pinned to one core: the dump read, decompressed and parsed as XML
without a look at its pages; its articles' wikitext made into text; both, as a build does; and the
second by mwparserfromhell's `strip_code` (the peer), where that is installed. Each line is the
best of several rounds, in CPU time, over the same bytes of wikitext.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from data_pipelines.sources.wikipedia import articles
from data_pipelines.sources.wikitext import to_text
from llama_jax.config import WikipediaSource

SAMPLE = Path(__file__).parents[2] / (
    "shared/corpora/wikipedia/piskvorky+gensim/"
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    dump: Path = SAMPLE
    """A pages-articles dump; by default the English sample beside the project."""
    rounds: int = 5
    """Rounds, of which the best counts."""


def read(dump: Path) -> list[str]:
    """Wikitext of the articles of a dump."""
    (file,) = open_source(WikipediaSource(path=str(dump))).files()
    return [article.wikitext for article in articles(file, Dropped())]


def main(options: Options) -> None:
    """Prints a line for each part."""
    if not options.dump.is_file():
        print(f"skipped: there is no {options.dump.name}; give one with --dump")
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = read(options.dump)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6

    rates: dict[str, float] = {}

    def report(name: str, run: Callable[[], object]) -> None:
        seconds = []
        for _ in range(options.rounds):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        rates[name] = megabytes / min(seconds)
        print(f"{name:40} {rates[name]:8.2f} MB/s of {megabytes:.2f} MB of wikitext", flush=True)

    source = open_source(WikipediaSource(path=str(options.dump)))
    report("dump to wikitext", lambda: read(options.dump))
    report("wikitext to text", lambda: [to_text(text) for text in texts])
    report("dump to text", lambda: list(read_all(source, Dropped())))
    try:
        import mwparserfromhell  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("mwparserfromhell is not installed: no peer measured")
        return
    report("mwparserfromhell", lambda: [mwparserfromhell.parse(t).strip_code() for t in texts])
    ratio = rates["wikitext to text"] / rates["mwparserfromhell"]
    print(f"wikitext to text is {ratio:.1f} times as fast as mwparserfromhell")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
