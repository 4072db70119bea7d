"""Stack Exchange's dumps: each question with its answers, best first."""

import contextlib
import functools
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.parsers import expat

from llama_jax.config import StackExchangeSource

from ..document import Document, Dropped, RawFile
from . import seven_zip
from .folder import open_decompressed, raw_files
from .post_html import html_to_text
from .scratch import scratch_database

_SUFFIXES = (".xml", ".xml.bz2", ".xml.gz")
_ARCHIVE = ".7z"
_CHUNK_BYTES = 1 << 16
# Between one row and the next; a post is 30,000 characters of Markdown at most.
_MAX_ROW_BYTES = 4 << 20
_MAX_DOCUMENT_CHARS = 8 << 20
_MAX_NAMES = 1000
_MAX_DEPTH = 4
_MAX_NUMBER = 1 << 62
_QUESTION, _ANSWER = "1", "2"
_POSTS = "CREATE TABLE posts (question, is_answer, score, id, title, text)"
_DAMAGE = (*seven_zip.DAMAGE, zlib.error, expat.ExpatError)
_SITE = re.compile(
    r"((?:[a-z0-9-]+\.){0,2}(?:stackexchange\.com|stackoverflow\.com|serverfault\.com|superuser\.com"
    r"|askubuntu\.com|stackapps\.com|mathoverflow\.net))(?:-posts)?(?:\.7z|\.xml(?:\.bz2|\.gz)?)?"
)
# Elsewhere, on the sites about languages, there may be several.
_LANGUAGES = {
    **dict.fromkeys(("stackoverflow.com", "serverfault.com", "superuser.com"), "en"),
    **dict.fromkeys(("askubuntu.com", "mathoverflow.net", "stackapps.com"), "en"),
    **{f"{code}.stackoverflow.com": code for code in ("es", "ja", "pt", "ru")},
}


class _DamagedError(Exception):
    """A dump that no Stack Exchange site wrote."""


class _Post(NamedTuple):
    question: int
    is_answer: int
    score: int
    id: int
    title: str
    text: str


class StackExchange:
    """Documents of Posts.xml dumps, plain, as .bz2, .gz or in .7z: a question a document.

    "Q: title", the question, then "A: answer" for each answer, the highest score first, ties by id.
    Ids are the path below the folder and the question's number: "coffee/Posts.xml:17", and in an
    archive as they are published "coffee.stackexchange.com.7z/Posts.xml:17". A question has an
    address where a folder or the file is named by the site, "coffee.stackexchange.com". Posts wait
    for their answers in a file of SQLite, in a temporary folder (`TMPDIR`) of about the dump's
    size, and are sorted there: memory does not grow with the dump.

    Source: answers by score and HTML removed, as in LLaMA-1, Touvron et al. 2023
    (arXiv:2302.13971), section 2.1. Which posts it took, and what stood between them, it does not
    say.
    """

    def __init__(self, config: StackExchangeSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every Posts.xml and every archive; see `DocumentSource`."""
        # A dump that is named alone may have any name.
        prefix = "" if self._config.path.lower().endswith(_SUFFIXES) else "posts"
        wanted = (*(f"{prefix}{suffix}" for suffix in _SUFFIXES), _ARCHIVE)
        return raw_files(
            self._config.name,
            self._config.path,
            lambda name: name.lower().endswith(wanted),
            kinds="Posts.xml, Posts.xml.bz2, Posts.xml.gz or .7z",
        )

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every question, by file and number; see `DocumentSource`.

        Raises:
            OSError: If the temporary folder is full.
        """
        if file.name.lower().endswith(_ARCHIVE):
            yield from self._archive(file, dropped)
        else:
            opened = functools.partial(open_decompressed, file)
            yield from self._dump(file.name, _site(file.url), opened, dropped)

    def _archive(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        with file.open() as archive:
            try:
                dumps = [each for each in seven_zip.members(archive) if _is_dump(each.name)]
            except seven_zip.NotReadError as error:
                dropped.add(f"7z archive that is not read ({error}): unpack it first", file.name)
                return
            except seven_zip.DAMAGE as error:
                dropped.add_bad(f"7z archive damaged ({type(error).__name__})", file.name)
                return
            if not dumps:
                dropped.add("7z archive without Posts.xml", file.name)
            for each in dumps:
                opened = functools.partial(seven_zip.open_member, archive, each)
                name = f"{file.name}/{each.name}"
                yield from self._dump(name, _site(f"{file.url}/{each.name}"), opened, dropped)

    def _dump(
        self,
        name: str,
        site: str,
        opened: Callable[[], contextlib.AbstractContextManager[Any]],
        dropped: Dropped,
    ) -> Iterator[Document]:
        """Every question of a dump that `opened` opens."""
        language = _LANGUAGES.get(site, "")
        with scratch_database(f"sources.{self._config.name}", _POSTS) as table:
            try:
                with opened() as dump:
                    for row in _rows(dump):
                        if (post := self._post(name, row, dropped)) is not None:
                            table.execute("INSERT INTO posts VALUES (?, ?, ?, ?, ?, ?)", post)
            except seven_zip.NotReadError as error:
                dropped.add(f"7z archive that is not read ({error}): unpack it first", name)
            except _DAMAGE as error:
                reason = f"file damaged, the rest of it is lost ({type(error).__name__})"
                dropped.add_bad(reason, name)
            except _DamagedError as error:
                dropped.add_bad(f"file damaged, the rest of it is lost ({error})", name)
            by_score = table.execute(
                "SELECT * FROM posts ORDER BY question, is_answer, score DESC, id"
            )
            posts = map(_Post._make, by_score)
            for question, group in itertools.groupby(posts, key=lambda post: post.question):
                if (text := self._thread(name, group, dropped)) is not None:
                    url = f"https://{site}/questions/{question}" if site else ""
                    yield Document(f"{name}:{question}", text, url, language)

    def _post(self, name: str, row: dict[str, str], dropped: Dropped) -> _Post | None:
        """The row's post, or None, with the reason recorded."""
        number, kind = _number(row.get("Id")), row.get("PostTypeId")
        if number is None:
            return dropped.add("a row without an Id", name)
        record = f"{name}:{number}"
        if kind not in (_QUESTION, _ANSWER):
            return dropped.add("neither question nor answer", record)
        question = number if kind == _QUESTION else _number(row.get("ParentId"))
        if question is None:
            return dropped.add("an answer without its question", record)
        score = _number(row.get("Score", "0"))
        if score is None:
            return dropped.add("no valid score", record)
        if score < self._config.min_score:
            return dropped.add("a score below min_score", record)
        text = html_to_text(row.get("Body", ""))
        if not text:
            return dropped.add("no text", record)
        title = " ".join(row.get("Title", "").split())
        return _Post(question, int(kind == _ANSWER), score, number, title, text)

    def _thread(self, name: str, posts: Iterator[_Post], dropped: Dropped) -> str | None:
        """The document of a question's posts, which come in their order."""
        question = next(posts)
        if question.is_answer:
            for post in itertools.chain([question], posts):
                dropped.add("an answer without its question", f"{name}:{post.id}")
            return None
        parts = [f"Q: {question.title}\n\n{question.text}" if question.title else question.text]
        seen, chars = {question.id}, len(parts[0])
        for post in posts:
            record = f"{name}:{post.id}"
            if post.id in seen:
                dropped.add("the same id as another post", record)
            elif len(parts) > self._config.max_answers:
                dropped.add("an answer beyond max_answers", record)
            elif chars + len(post.text) > _MAX_DOCUMENT_CHARS:
                dropped.add(f"an answer beyond {_MAX_DOCUMENT_CHARS:,} characters", record)
            else:
                seen.add(post.id)
                chars += len(post.text)
                parts.append(f"A: {post.text}")
        return "\n\n".join(parts)


def _site(url: str) -> str:
    """The site in the path of a dump: archives are named by it, and unpack to one name."""
    sites = [found[1] for part in url.lower().split("/") if (found := _SITE.fullmatch(part))]
    return sites[-1] if sites else ""


def _rows(dump: Any) -> Iterator[dict[str, str]]:
    """Attributes of every row, as they come; whatever a dump never holds is refused."""
    rows: list[dict[str, str]] = []
    names: dict[str, str] = {}
    # Forced, because a file's own declaration could name any codec of Python's.
    parser = expat.ParserCreate("utf-8", intern=names)
    depth = last_row = fed = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, last_row
        depth += 1
        if depth > _MAX_DEPTH:
            raise _DamagedError("nested elements")
        if tag == "row":
            last_row = parser.CurrentByteIndex
            rows.append(attributes)

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise _DamagedError("it declares a document type or entities")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    while chunk := dump.read(_CHUNK_BYTES):
        fed += len(chunk)
        failure: Exception | None = None
        try:
            parser.Parse(chunk)
        except (expat.ExpatError, _DamagedError) as error:
            failure = error
        yield from rows
        rows.clear()
        if failure is not None:
            raise failure
        # A single long row, or a bomb of spaces that holds none.
        if fed - last_row > _MAX_ROW_BYTES:
            raise _DamagedError(f"no row in {_MAX_ROW_BYTES:,} bytes")
        if len(names) > _MAX_NAMES:
            raise _DamagedError(f"more than {_MAX_NAMES} names of attributes")
    parser.Parse(b"", True)


def _number(text: str | None) -> int | None:
    """A whole number that SQLite can hold, or None."""
    if text is None or len(text) > 20:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) < _MAX_NUMBER else None


def _is_dump(name: str) -> bool:
    """Whether a member of an archive is one; there are comments, votes and others beside it."""
    return PurePosixPath(name).name.lower() == "posts.xml"
