"""How fast one core reads a corpus, and what memory it takes: Books and StackExchange.

Command: python benchmarks/documents.py books gutenberg/
         python benchmarks/documents.py stack_exchange Posts.xml
"""

import argparse
import resource
import time

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source
from llama_jax.config import BooksSource, StackExchangeSource

SOURCES = {"books": BooksSource, "stack_exchange": StackExchangeSource}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("path")
    arguments = parser.parse_args()
    source, dropped = open_source(SOURCES[arguments.source](path=arguments.path)), Dropped()
    start, count, text_bytes = time.process_time(), 0, 0
    for document in source.documents(dropped):
        count += 1
        text_bytes += len(document.text.encode())
    seconds = time.process_time() - start
    size = source.size_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} documents, {text_bytes:,} bytes of text from {size:,}: {seconds:.2f} CPU s")
    print(f"{size / 1e6 / seconds:.1f} MB/s read, peak {peak:.0f} MiB; left out {dropped.counts}")


if __name__ == "__main__":
    main()
