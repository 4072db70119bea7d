"""How raw documents become token shards."""

import dataclasses
import re

from llama_jax.config import checks
from llama_jax.config.rules import Rule, check_rules


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PythonEnvironmentSource:
    """The Python sources and documentation installed on this machine.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "python"
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FilesSource:
    """Every .txt, .md, .jsonl(.gz/.zst) and .parquet file below a folder.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        path: Folder or file.
        text_field: Column or JSON key that holds a document's text.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "files"
    path: str = ""
    text_field: str = "text"
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BooksSource:
    """Books of Project Gutenberg: every .txt file below a folder, without header and licence.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        path: Folder or file.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "books"
    path: str = ""
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StackExchangeSource:
    """Questions with their answers, best first, of every Posts.xml(.bz2/.gz) below a folder.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        path: Folder or file.
        min_score: Questions and answers of a lower score are left out.
        max_answers: Answers of a question taken at most, those of the highest scores.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "stack_exchange"
    path: str = ""
    min_score: int = -(1 << 40)
    max_answers: int = 1 << 40
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)
        checks.not_negative(f"sources.{self.name}", max_answers=self.max_answers)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WikipediaSource:
    """Articles of MediaWiki pages-articles dumps (.xml, .xml.bz2, .xml.gz), as plain text.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        path: Dump, or folder of dumps; one wiki or several.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "wikipedia"
    path: str = ""
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ArxivSource:
    """Papers of arXiv's bulk source tars, as LaTeX from the first section on.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        path: Tar, or folder of tars.
        max_bytes: Text taken at most; documents are chosen by hash.
        rules: Documents that break one are dropped; see `llama_jax.config.rules`.
    """

    name: str = "arxiv"
    path: str = ""
    max_bytes: int = 1 << 40
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        checks.positive(f"sources.{self.name}", max_bytes=self.max_bytes)


Source = (
    PythonEnvironmentSource
    | FilesSource
    | ArxivSource
    | BooksSource
    | StackExchangeSource
    | WikipediaSource
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerTraining:
    """A SentencePiece BPE tokenizer trained on a sample, with LLaMA's settings.

    Attributes:
        vocab_size: Pieces, bytes and special tokens included.
        sample_bytes: Text that it is trained on, at most.
    """

    vocab_size: int = 32_000
    sample_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        checks.positive("tokenizer", sample_bytes=self.sample_bytes)
        if self.vocab_size < 300:
            raise ValueError(
                f"tokenizer.vocab_size={self.vocab_size} must be 300 or more: 256 byte pieces and "
                "the special tokens come first."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFile:
    """An existing tokenizer: a SentencePiece .model or a tiktoken file.

    Attributes:
        path: The file.
    """

    path: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """Sources, tokenizer and shards of a dataset.

    Attributes:
        name: Of the dataset.
        sources: Where documents come from.
        tokenizer: Trained here, or read from a file.
        held_out_fraction: Share of documents, chosen by hash, that training never sees.
        shard_tokens: Tokens of a shard, about.
    """

    name: str
    sources: tuple[Source, ...]
    tokenizer: TokenizerTraining | TokenizerFile
    held_out_fraction: float = 0.01
    shard_tokens: int = 100_000_000

    def __post_init__(self) -> None:
        checks.fraction("build", held_out_fraction=self.held_out_fraction)
        checks.positive("build", shard_tokens=self.shard_tokens)
        if not self.sources:
            raise ValueError("build.sources is empty; name at least one source.")
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"build.sources has {', '.join(twice)} twice; give each its own name.")
        for source in self.sources:
            check_rules(f"sources.{source.name}", source.rules)
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"sources.name={name!r} must be lower-case letters, digits and underscores, a "
                    "letter first: TensorFlow Datasets finds shards by it."
                )
