"""Source code: files of repositories with their paths and licences."""

import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from llama_jax.config import GitHubSource

from ..document import Document, Dropped, RawFile
from ..stages.filters import apply_filters, open_filters
from . import repository_archive, repository_checkout
from .folder import raw_files
from .licences import (
    NONE_FOUND,
    NOT_RECOGNISED,
    AllowList,
    is_licence_file,
    licences_in,
    says_nothing,
)
from .records import RECORD_SUFFIXES, Record, read_records, short_text
from .repository_archive import SourceFile
from .scratch import scratch_database

_MAX_REPOSITORY_CHARACTERS = 8 << 20
_GITHUB_NAME = re.compile(r"[\w-]{1,39}/[\w.-]{1,100}", re.ASCII)
_FILES = """CREATE TABLE files (
    repository, path, number INTEGER PRIMARY KEY, language, licence, url, record, text
)"""
_IN_ORDER = "SELECT * FROM files ORDER BY number"
_BY_REPOSITORY = "SELECT * FROM files ORDER BY repository, path, number"
_LICENCES = """CREATE TABLE licences (
    repository, folder, licence, PRIMARY KEY (repository, folder, licence)
) WITHOUT ROWID"""


class GitHub:
    """Files of repositories, from JSON lines, Parquet, tars and checkouts, in the order of those.

    A file's licence is what its record says. Where that leaves it open, it is what the licence
    files in its folder say, or in the nearest folder above it that has any: those files wait, in
    SQLite in the temporary folder, for the end of the raw file, and come last. Each raw file is
    read by itself: a repository that is spread over several has the licence files of each alone.

    With `concatenate_repositories`, a document is a repository: its files in order of path, each
    after a line with "# " and its path; a long one is cut between files.

    Sources: licences, RedPajama-1, Together 2023; the line with the path, DeepSeek-Coder, Guo et
    al. 2024 (arXiv:2401.14196), section 2.1 (there files come in the order of their imports); order
    of path, StarCoder2, Lozhkov et al. 2024 (arXiv:2402.19173).
    """

    def __init__(self, config: GitHubSource):
        self._config = config
        self._allowed = AllowList(config.licences)

    def files(self) -> Iterator[RawFile]:
        """Every raw file of these kinds, and every checkout; see `DocumentSource`."""
        suffixes = (*RECORD_SUFFIXES, *repository_archive.SUFFIXES)
        checkouts = repository_checkout.checkouts(self._config.path)
        root = Path(self._config.path)
        inside = tuple("" if Path(each.url) == root else f"{each.name}/" for each in checkouts)
        return raw_files(
            self._config.name,
            self._config.path,
            lambda name: name.lower().endswith(suffixes) and not name.startswith(inside),
            kinds=", ".join((*suffixes, "checkout (a folder with .git)")),
            also=checkouts,
        )

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every file with an allowed licence; see `DocumentSource`.

        Raises:
            OSError: If the temporary folder is full.
        """
        filters = open_filters(self._config.file_filters)
        documents = apply_filters(filters, self._documents(file, dropped), dropped)
        yield from _repositories(documents) if self._config.concatenate_repositories else documents

    def _documents(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        with scratch_database(f"sources.{self._config.name}", _FILES, _LICENCES) as database:
            for found in self._files(file, dropped):
                if is_licence_file(found.path):
                    rows = (
                        (found.repository, found.path.rpartition("/")[0], licence)
                        for licence in licences_in(found.text) or {NOT_RECOGNISED}
                    )
                    database.executemany("INSERT OR IGNORE INTO licences VALUES (?, ?, ?)", rows)
                if found.licence and not self._is_allowed(found, dropped):
                    continue
                if found.licence and not self._config.concatenate_repositories:
                    yield _document(found)
                else:
                    database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", found)
            together = self._config.concatenate_repositories
            for row in database.execute(_BY_REPOSITORY if together else _IN_ORDER):
                found = SourceFile._make(row)
                if not found.licence:
                    found = found._replace(licence="\n".join(_nearest(database, found)))
                    if not self._is_allowed(found, dropped):
                        continue
                yield _document(found)

    def _files(self, file: RawFile, dropped: Dropped) -> Iterator[SourceFile]:
        if "://" not in file.url and Path(file.url).is_dir():
            yield from repository_checkout.read_checkout(file, dropped)
            return
        if file.name.lower().endswith(repository_archive.SUFFIXES):
            yield from repository_archive.read_archive(file, dropped)
            return
        config = self._config
        fields = (
            *config.repository_fields,
            *config.path_fields,
            *config.licence_fields,
            *config.ref_fields,
            *config.language_fields,
        )
        records = read_records(file, config.text_fields, fields, dropped)
        for number, record in enumerate(records):
            repository = _first(record, config.repository_fields)
            path = _first(record, config.path_fields)
            if not repository or not path:
                dropped.add("no repository or no path", record.id)
                continue
            repository, path = short_text(repository), short_text(path)
            ref = short_text(_first(record, config.ref_fields))
            yield SourceFile(
                repository=repository,
                path=path,
                number=number,
                language=short_text(_first(record, config.language_fields)),
                licence="\n".join(_stated(_first(record, config.licence_fields))),
                url=_url(repository, ref, path),
                record=record.id,
                text=record.text,
            )

    def _is_allowed(self, file: SourceFile, dropped: Dropped) -> bool:
        """Whether all its licences are; if not, the first that is not is recorded."""
        licences = file.licence.split("\n")
        if (refused := self._allowed.refused(licences)) is None:
            return True
        value = f"{short_text(licences)}; {file.repository}/{file.path}"
        dropped.add(f"licence: {refused}", file.record, file.text, value=value)
        return False


def _document(file: SourceFile) -> Document:
    metadata = [
        ("repository", file.repository),
        ("path", file.path),
        ("licence", short_text(file.licence.split("\n"))),
    ]
    if file.language:
        metadata.append(("programming_language", file.language))
    return Document(file.record, file.text, url=file.url, metadata=tuple(metadata))


def _first(record: Record, names: Iterable[str]) -> object:
    values = record.values
    return next((values[name] for name in names if values.get(name) is not None), None)


def _stated(value: object) -> list[str]:
    """Licences that a record states, less those that say nothing."""
    licences = [short_text(each) for each in (value if isinstance(value, list) else [value])]
    return [" ".join(each.split()) for each in licences if not says_nothing(each)]


def _nearest(database: sqlite3.Connection, file: SourceFile) -> list[str]:
    """What the nearest licence files say, from the file's folder upwards."""
    folder = file.path
    while folder:
        folder = folder.rpartition("/")[0]
        query = "SELECT licence FROM licences WHERE repository = ? AND folder = ?"
        if found := [row[0] for row in database.execute(query, (file.repository, folder))]:
            # A text beside them that is not known is a notice or a list of authors, mostly.
            return [name for name in found if name != NOT_RECOGNISED] or found
    return [NONE_FOUND]


def _url(repository: str, ref: str, path: str) -> str:
    if not _GITHUB_NAME.fullmatch(repository):
        return ""
    return f"https://github.com/{repository}/blob/{quote(ref or 'HEAD')}/{quote(path)}"


def _repositories(files: Iterable[Document]) -> Iterator[Document]:
    """Files that follow one another in a repository, as one document."""
    for repository, group in itertools.groupby(files, lambda f: dict(f.metadata)["repository"]):
        parts: list[Document] = []
        size = 0
        for file in group:
            if parts and size + len(file.text) > _MAX_REPOSITORY_CHARACTERS:
                yield _joined(repository, parts)
                parts, size = [], 0
            parts.append(file)
            size += len(file.text)
        yield _joined(repository, parts)


def _joined(repository: str, files: list[Document]) -> Document:
    about = [dict(file.metadata) for file in files]
    texts = (f"# {each['path']}\n{file.text}" for each, file in zip(about, files, strict=True))
    licences = sorted({licence for each in about for licence in each["licence"].split(", ")})
    url = f"https://github.com/{repository}" if files[0].url else ""
    metadata = (
        ("repository", repository),
        ("licence", ", ".join(licences)),
        ("files", str(len(files))),
    )
    return Document(files[0].id, "\n\n".join(texts), url=url, metadata=metadata)
