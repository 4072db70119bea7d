"""Sources: one file a corpus, from raw bytes to documents."""

from llama_jax.config import FilesSource, PythonEnvironmentSource, Source, WikipediaSource

from ..document import DocumentSource
from .files import Files
from .python_environment import PythonEnvironment
from .wikipedia import Wikipedia


def open_source(config: Source) -> DocumentSource:
    """The reader of a configured source."""
    match config:
        case PythonEnvironmentSource():
            return PythonEnvironment()
        case FilesSource():
            return Files(config)
        case WikipediaSource():
            return Wikipedia(config)
