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
from .arxiv import Arxiv
from .books import Books
from .common_crawl import CommonCrawl
from .files import Files
from .github import GitHub
from .python_environment import PythonEnvironment
from .stack_exchange import StackExchange
from .wikipedia import Wikipedia


def open_source(config: Source) -> DocumentSource:
    """The reader of a configured source."""
    match config:
        case PythonEnvironmentSource():
            return PythonEnvironment()
        case FilesSource():
            return Files(config)
        case GitHubSource():
            return GitHub(config)
        case BooksSource():
            return Books(config)
        case StackExchangeSource():
            return StackExchange(config)
        case WikipediaSource():
            return Wikipedia(config)
        case CommonCrawlSource():
            return CommonCrawl(config)
        case ArxivSource():
            return Arxiv(config)


def read_all(source: DocumentSource, dropped: Dropped) -> Iterator[Document]:
    """Documents of every file, one file after the other."""
    for file in source.files():
        yield from source.read(file, dropped)
