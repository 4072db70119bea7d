"""How raw documents become token shards."""

import dataclasses
import re
from typing import Literal

from llama_jax.config import checks
from llama_jax.config.data import Mixture, check_mixture
from llama_jax.config.dedup import Deduplication
from llama_jax.config.filters import Filter, check_kinds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """What every source is asked.

    Attributes:
        name: Of the source, in the mixture and in the shards.
        max_bytes: Text taken at most, documents being chosen by hash; 0 takes all.
        filters: What documents pass on their way, in order; see `llama_jax.config.filters`.
        dedup: Which documents and paragraphs count as the same, beside equal texts; in order.
    """

    name: str
    max_bytes: int = 0
    filters: tuple[Filter, ...] = ()
    dedup: tuple[Deduplication, ...] = ()

    def __post_init__(self) -> None:
        owner = f"sources.{self.name}"
        checks.not_negative(owner, max_bytes=self.max_bytes)
        check_kinds(f"{owner}.filters", self.filters)
        check_kinds(f"{owner}.dedup", self.dedup)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PythonEnvironmentSource(_Source):
    """The Python sources and documentation installed on this machine."""

    name: str = "python"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FilesSource(_Source):
    """Every .txt, .md, .jsonl(.gz/.zst), .json.gz/.zst (lines too) and .parquet file in a folder.

    Attributes:
        path: Folder or file, local or a URL that fsspec opens.
        text_field: Column or JSON key that holds a document's text. Dots lead to nested ones, here
            and below: "meta.url".
        url_field: Where a document is to be found in public; documents may lack it.
        language_field: ISO 639-1 code of its language; "" for none.
        metadata_fields: What else is kept with a document, as text: its id, its date.
    """

    name: str = "files"
    path: str = ""
    text_field: str = "text"
    url_field: str = "url"
    language_field: str = ""
    metadata_fields: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BooksSource(_Source):
    """Books of Project Gutenberg: every .txt file below a folder, without header and licence.

    Attributes:
        path: Folder or file, local or a URL.
    """

    name: str = "books"
    path: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StackExchangeSource(_Source):
    """Questions with their answers, best first, of every Posts.xml(.bz2/.gz) or .7z below a folder.

    Attributes:
        path: Folder or file, local or a URL.
        min_score: Questions and answers of a lower score are left out.
        max_answers: Answers of a question taken at most, those of the highest scores.
    """

    name: str = "stack_exchange"
    path: str = ""
    min_score: int = -(1 << 40)
    max_answers: int = 1 << 40

    def __post_init__(self) -> None:
        _Source.__post_init__(self)
        checks.not_negative(f"sources.{self.name}", max_answers=self.max_answers)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WikipediaSource(_Source):
    """Articles of MediaWiki pages-articles dumps (.xml, .xml.bz2, .xml.gz), as plain text.

    Attributes:
        path: Dump, or folder of dumps, local or a URL; one wiki or several.
    """

    name: str = "wikipedia"
    path: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ArxivSource(_Source):
    """Papers of arXiv's bulk source tars, as LaTeX from the first section on.

    Attributes:
        path: Tar, or folder of tars, local or a URL.
    """

    name: str = "arxiv"
    path: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CommonCrawlSource(_Source):
    """Pages of web archives below a folder, as text.

    Attributes:
        path: Archive, or folder of archives, local or a URL.
        formats: Which archives are read: "warc", "arc", "wacz" (pages), "wet" (texts). A WET whose
            WARC is read is counted and left out.
        main_content: Whether menus, comments, advertisements and the like are left out of pages.
    """

    name: str = "common_crawl"
    path: str = ""
    formats: tuple[Literal["warc", "arc", "wacz", "wet"], ...] = ("warc", "arc", "wacz", "wet")
    main_content: bool = True

    def __post_init__(self) -> None:
        _Source.__post_init__(self)
        if not self.formats:
            raise ValueError(f'sources.{self.name}.formats is empty; name one, such as "warc".')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GitHubSource(_Source):
    """Files of repositories, with their licences: JSON lines, Parquet, tars or checkouts of one.

    Fields are those of The Stack, its samples, BigQuery's dumps, github-code and RedPajama-1; of
    each, the first that a record has counts, and dots lead to nested ones.

    Attributes:
        path: Folder or file, local or a URL.
        licences: Files under others are left out; SPDX identifiers. Source: RedPajama-1's, Together
            2023; "BSD" stands for a BSD licence of unknown number of clauses.
        file_filters: What each file passes before files are put together; `filters` sees what
            comes of that.
        concatenate_repositories: Whether the files of a repository, in order of their paths, are
            one document.
        text_fields: Contents of a file.
        repository_fields: "owner/name".
        path_fields: Path below the repository's root.
        licence_fields: An SPDX expression, or a list of them.
        ref_fields: Commit, for the address.
        language_fields: Programming language.
    """

    name: str = "github"
    path: str = ""
    licences: tuple[str, ...] = ("MIT", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0")
    file_filters: tuple[Filter, ...] = ()
    concatenate_repositories: bool = False
    text_fields: tuple[str, ...] = ("content", "code", "text")
    repository_fields: tuple[str, ...] = (
        "repo_name",
        "max_stars_repo_name",
        "repository_name",
        "sample_repo_name",
        "meta.repo_name",
    )
    path_fields: tuple[str, ...] = ("path", "max_stars_repo_path", "sample_path", "meta.path")
    licence_fields: tuple[str, ...] = (
        "license",
        "max_stars_repo_licenses",
        "licenses",
        "meta.license",
    )
    ref_fields: tuple[str, ...] = ("ref", "max_stars_repo_head_hexsha", "meta.ref")
    language_fields: tuple[str, ...] = ("lang", "language")

    def __post_init__(self) -> None:
        _Source.__post_init__(self)
        owner = f"sources.{self.name}"
        check_kinds(f"{owner}.file_filters", self.file_filters)
        for field in ("licences", "text_fields", "repository_fields", "path_fields"):
            if not getattr(self, field):
                raise ValueError(f"{owner}.{field} is empty: every file would be left out.")


Source = (
    PythonEnvironmentSource
    | FilesSource
    | GitHubSource
    | ArxivSource
    | BooksSource
    | CommonCrawlSource
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
        mixture: Pairs of source and weight that training is to see, unless its own recipe says
            otherwise; weights are normalised. Empty means as the sources have tokens.
        tokenizer: Trained here, or read from a file.
        held_out_fraction: Share of documents, chosen by hash, that training never sees.
        shard_tokens: Tokens of a shard, about.
    """

    name: str
    sources: tuple[Source, ...]
    tokenizer: TokenizerTraining | TokenizerFile
    mixture: Mixture = ()
    held_out_fraction: float = 0.01
    shard_tokens: int = 100_000_000

    def __post_init__(self) -> None:
        check_mixture("build", self.mixture)
        checks.fraction("build", held_out_fraction=self.held_out_fraction)
        checks.positive("build", shard_tokens=self.shard_tokens)
        if not self.sources:
            raise ValueError("build.sources is empty; name at least one source.")
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"build.sources has {', '.join(twice)} twice; give each its own name.")
        if unknown := [name for name, _ in self.mixture if name not in names]:
            raise ValueError(
                f"build.mixture names {unknown[0]!r}, which is no source; there are: "
                f"{', '.join(names)}."
            )
        for name in names:
            if name in ("documents", "dropped"):
                raise ValueError(
                    f"sources.name={name!r} is the folder of all {name} of a build; give another."
                )
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"sources.name={name!r} must be lower-case letters, digits and underscores, a "
                    "letter first: TensorFlow Datasets finds shards by it."
                )
