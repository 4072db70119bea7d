"""Sources: one file a corpus, from raw bytes to documents."""

from collections.abc import Iterator

from llama_jax.config import (
    ArxivSource,
    BooksSource,
    CommonCrawlSource,
    FilesSource,
    GitHubSource,
    PythonEnvironmentSource,
    Source,
    StackExchangeSource,
    WikipediaSource,
)

from ..document import Document, DocumentSource, Dropped
from ..raw_stream import UnreadableError


def open_source(config: Source) -> DocumentSource:
    """The reader of a configured source."""
    # What one imports is no part of what another one has made; see `code_version`.
    match config:
        case PythonEnvironmentSource():
            from .python_environment import PythonEnvironment

            return PythonEnvironment()
        case FilesSource():
            from .files import Files

            return Files(config)
        case GitHubSource():
            from .github import GitHub

            return GitHub(config)
        case BooksSource():
            from .books import Books

            return Books(config)
        case StackExchangeSource():
            from .stack_exchange import StackExchange

            return StackExchange(config)
        case WikipediaSource():
            from .wikipedia import Wikipedia

            return Wikipedia(config)
        case CommonCrawlSource():
            from .common_crawl import CommonCrawl

            return CommonCrawl(config)
        case ArxivSource():
            from .arxiv import Arxiv

            return Arxiv(config)


def read_all(source: DocumentSource, dropped: Dropped) -> Iterator[Document]:
    """Documents of every file, one file after the other.

    Raises:
        OSError: If a file cannot be read.
    """
    try:
        for file in source.files():
            yield from source.read(file, dropped)
    except UnreadableError as error:
        raise OSError(str(error)) from error
