"""Articles of Wikipedia's pages-articles dumps."""

import re
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

from llama_jax.config import WikipediaSource

from ..document import Document, Dropped, RawFile
from .dump_pieces import open_dump
from .folder import raw_files
from .pieces import has_streams, is_bz2
from .wikitext import to_text
from .wikitext_names import HIDDEN_NAMESPACES, REDIRECTS

# Published parts are named "enwiki-20240101-pages-articles1.xml-p1p41242.bz2".
_NAME = re.compile(r"(?i).*\.xml(-p\d+p\d+[\w-]*)?(\.bz2|\.gz)?")
_CHUNK_BYTES = 1 << 18
# MediaWiki refuses to save a page of more than 2 MiB (its $wgMaxArticleSize).
_MAX_PAGE_CHARS = 4_000_000
_MAX_FIELD_CHARS = 1_000
_MAX_TOKEN_BYTES = 1 << 24
_MAX_DEPTH = 50
_MAX_NAMESPACES = 1_000
# Of a code such as "pt-br" the language; longer codes are none of ISO 639-1.
_LANGUAGE = re.compile(r"[a-z]{2}(?![a-z])")
_PLAIN_IN_URLS = "/:;@$!*(),~'"
_REDIRECT = re.compile(r"\s*#\s*(\w+)[\s:]*\[\[")
# Of the namespaces' own numbers: media, files and categories show no text where they are linked.
_HIDDEN_KEYS = frozenset(["-2", "6", "14"])
_FIELDS = frozenset(
    [
        ("siteinfo", "base"),
        ("namespaces", "namespace"),
        ("page", "title"),
        ("page", "ns"),
        ("page", "id"),
        ("revision", "model"),
        ("revision", "text"),
    ]
)


class Wikipedia:
    """Articles of every XML dump below a folder, in the order of the paths.

    Takes .xml, .xml.bz2 (multistream too) and .xml.gz of any version of MediaWiki's export schema.
    Ids are path, page id and title: "enwiki-pages-articles.xml.bz2:12:Anarchism". Address and
    language are those of the wiki that the dump names. A page with several revisions gives the
    last one.
    """

    def __init__(self, config: WikipediaSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every dump; see `DocumentSource`."""
        return raw_files(
            self._config.name,
            self._config.path,
            lambda name: bool(_NAME.fullmatch(PurePosixPath(name).name)),
            kinds=".xml, .xml.bz2 or .xml.gz (.xml.7z must be unpacked first)",
        )

    def can_cut(self, file: RawFile) -> bool:
        """Whether it is plain, or of many streams; see `Divisible`."""
        return has_streams(file) if is_bz2(file) else not file.name.lower().endswith(".gz")

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every article, its title on the first line; see `DocumentSource`."""
        for article in articles(file, dropped):
            if text := to_text(article.wikitext, hidden=article.hidden):
                text = f"{article.title}\n{text}"
                yield Document(article.key, text, article.url, article.language)
            else:
                dropped.add("no text", article.key)


class Article(NamedTuple):
    """An article as a dump has it.

    Attributes:
        key: File, page id and title.
        title: As readers see it.
        wikitext: Source of the page.
        url: Where it is to be read; empty where the dump does not say.
        language: ISO 639-1 code of the wiki's language; empty where the dump names none.
        hidden: Namespaces of the wiki whose links show no text.
    """

    key: str
    title: str
    wikitext: str
    url: str
    language: str
    hidden: frozenset[str]


def articles(file: RawFile, dropped: Dropped) -> Iterator[Article]:
    """The articles of a dump; what else it holds, and damage, is recorded in `dropped`."""
    try:
        yield from _articles(file, dropped)
    except (OSError, EOFError, zlib.error, expat.ExpatError, _RefusedError) as error:
        why = str(error) if isinstance(error, _RefusedError) else type(error).__name__
        dropped.add_bad(f"file damaged, the rest of it is lost ({why})", file.label)


def _articles(file: RawFile, dropped: Dropped) -> Iterator[Article]:
    reader, found, name = _DumpReader(), False, file.name
    with open_dump(file) as dump:
        # Not `read`: it loses what it has already decompressed where a file is cut short.
        while chunk := dump.read1(_CHUNK_BYTES):
            for page in reader.feed(chunk):
                found = True
                key = f"{name}:{page.id}:{page.title}"
                if reason := _why_not(page, reader.namespaces):
                    dropped.add(reason, key)
                else:
                    url, wikitext = reader.url(page.title), page.wikitext
                    yield Article(key, page.title, wikitext, url, reader.language, reader.hidden)
        reader.close()
    if not found and not file.stop:
        dropped.add("no page in the file", name)


class _Page(NamedTuple):
    id: str
    title: str
    namespace: str
    model: str
    wikitext: str
    is_redirect: bool
    is_too_long: bool


def _why_not(page: _Page, namespaces: dict[str, str]) -> str | None:
    """Why a page is no article, or None; never more reasons than the dump has namespaces."""
    # Schemas before 0.6 do not say the namespace of a page; its title begins with it.
    prefix = page.title.partition(":")[0].lower()
    namespace = page.namespace or namespaces.get(prefix, "0")
    if namespace != "0":
        known = namespace if namespace in namespaces.values() else "that it does not declare"
        return f"not an article (namespace {known})"
    if page.is_too_long:
        return f"longer than {_MAX_PAGE_CHARS:,} characters"
    redirect = _REDIRECT.match(page.wikitext)
    if page.is_redirect or (redirect and redirect[1].lower() in REDIRECTS):
        return "redirect"
    return None if page.model in ("wikitext", "") else "not wikitext"


class _RefusedError(Exception):
    """What no dump holds and would take memory without bound."""


class _DumpReader:
    """Pages of a dump that is fed in pieces; holds one piece and one page.

    Attributes:
        language: ISO 639-1 code of the wiki's language; empty where the dump names none.
        hidden: Namespaces whose links show no text.
        namespaces: Number of each namespace, by lower-case name.
    """

    def __init__(self) -> None:
        self.language = ""
        self._base = ""
        self.hidden = HIDDEN_NAMESPACES
        self.namespaces: dict[str, str] = {}
        self._pages: list[_Page] = []
        self._path: list[str] = []
        self._num_bytes = 0
        self._key = ""
        self._fields: dict[str, str] = {}
        self._too_long: set[str] = set()
        self._is_redirect = False
        self._field, self._parts, self._num_chars = "", list[str](), 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text, parser.buffer_size = True, 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, chunk: bytes) -> Iterator[_Page]:
        """Pages that end in this piece; those before damage come first, then the error."""
        damage, self._pages = None, []
        self._num_bytes += len(chunk)
        try:
            self._parser.Parse(chunk, False)
        except (expat.ExpatError, _RefusedError) as error:
            damage = error
        yield from self._pages
        if damage is not None:
            raise damage
        # Expat keeps a tag, a comment or an attribute until it ends.
        if self._num_bytes - self._parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise _RefusedError(f"a tag or comment of more than {_MAX_TOKEN_BYTES:,} bytes")

    def url(self, title: str) -> str:
        """Where a page is to be read; empty where the dump does not say of which wiki it is."""
        name = urllib.parse.quote(title.replace(" ", "_"), safe=_PLAIN_IN_URLS)
        return self._base and self._base + name

    def close(self) -> None:
        """Ends the dump; one that is cut short raises `ExpatError`."""
        self._parser.Parse(b"", True)

    def _doctype(self, *_: object) -> None:
        # Entities that expand into one another are declared there; no dump has any.
        raise _RefusedError("it declares a DOCTYPE")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        parent = self._path[-1] if self._path else ""
        self._path.append(tag)
        if len(self._path) > _MAX_DEPTH:
            raise _RefusedError(f"tags nested deeper than {_MAX_DEPTH}")
        if tag == "mediawiki":
            found = _LANGUAGE.match(attributes.get("xml:lang", "").lower())
            self.language = found[0] if found else ""
        elif tag == "page":
            self._fields, self._is_redirect = {}, False
            self._too_long.clear()
        elif tag == "redirect":
            self._is_redirect = True
        elif (parent, tag) in _FIELDS:
            self._key = attributes.get("key", "")[:_MAX_FIELD_CHARS]
            self._field, self._parts, self._num_chars = tag, [], 0
            self._too_long.discard(tag)
            self._parser.CharacterDataHandler = self._text

    def _text(self, text: str) -> None:
        self._num_chars += len(text)
        limit = _MAX_PAGE_CHARS if self._field == "text" else _MAX_FIELD_CHARS
        if self._num_chars <= limit:
            self._parts.append(text)
        else:
            self._too_long.add(self._field)
            self._parts.clear()

    def _end(self, tag: str) -> None:
        self._path.pop()
        if tag == self._field:
            self._parser.CharacterDataHandler = None
            self._fields[tag] = "".join(self._parts)
            self._field, self._parts = "", []
            if tag == "namespace":
                self._add_namespace(self._fields.pop(tag).lower())
            elif tag == "base":
                # That of the main page; others are beside it.
                start, slash, _ = self._fields.pop(tag).rpartition("/")
                self._base = start + slash if start.startswith(("https://", "http://")) else ""
        elif tag == "page":
            self._pages.append(
                _Page(
                    id=self._fields.get("id", ""),
                    title=" ".join(self._fields.get("title", "").split()),
                    namespace=self._fields.get("ns", ""),
                    model=self._fields.get("model", ""),
                    wikitext=self._fields.get("text", ""),
                    is_redirect=self._is_redirect,
                    is_too_long=bool(self._too_long),
                )
            )
            self._fields = {}

    def _add_namespace(self, name: str) -> None:
        if name and len(self.namespaces) < _MAX_NAMESPACES:
            self.namespaces[name] = self._key
            if self._key in _HIDDEN_KEYS:
                self.hidden = self.hidden | {name}
