"""How fast one core reads a corpus into documents, and what memory it takes.

Command: python benchmarks/documents.py [--source stack_exchange --path Posts.xml]

Each source has a process of its own, so that the peak is its own. Without a path, the sample
corpora beside the project are read, where they are.
"""

import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

import tyro

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.config import (
    ArxivSource,
    BooksSource,
    GitHubSource,
    StackExchangeSource,
    WikipediaSource,
)

SOURCES = {
    "arxiv": ArxivSource,
    "books": BooksSource,
    "github": GitHubSource,
    "stack_exchange": StackExchangeSource,
    "wikipedia": WikipediaSource,
}
SAMPLES = Path(__file__).parents[2] / "shared" / "corpora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is read."""

    source: str = ""
    """One of SOURCES; all of them by default."""
    path: str = ""
    """File or folder of that source."""


def main(options: Options) -> None:
    """Reads the one source asked for, or all samples, a process each."""
    if options.path:
        measure(options.source, options.path)
        return
    for name in SOURCES:
        path = SAMPLES / name.replace("_", "")
        if not path.is_dir():
            print(f"{name}: skipped, there is no {path.name}/ among the samples beside the project")
            continue
        command = [sys.executable, __file__, "--source", name, "--path", str(path)]
        subprocess.run(command, check=True)


def measure(name: str, path: str) -> None:
    """Prints the rate of one source, and the memory that this process came to."""
    source, dropped = open_source(SOURCES[name](path=path)), Dropped()
    start, count, text_bytes = time.process_time(), 0, 0
    for document in read_all(source, dropped):
        count += 1
        text_bytes += len(document.text.encode())
    seconds = time.process_time() - start
    size = sum(file.expected_text_bytes() for file in source.files())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name}: {count:,} documents, {text_bytes:,} bytes of text in {seconds:.2f} CPU s: "
        f"{text_bytes / 1e6 / seconds:.1f} MB/s of text, {size / 1e6 / seconds:.1f} MB/s read; "
        f"peak {peak:.0f} MiB"
    )
    print(f"  left out: {dict(dropped.counts) or 'nothing'}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
