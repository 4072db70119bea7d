"""Books of Project Gutenberg, without its header, its licence and its transcribers' notes."""

import re
from collections.abc import Iterator

from llama_jax.config import BooksSource

from ..document import Document, Dropped, RawFile
from .folder import raw_files

# The longest book of prose is about 6 MB; what is longer is a genome or a table of digits.
_MAX_BYTES = 16 << 20
_HEAD_LINES = 1500
_HEAD_PARAGRAPHS = 300
_NOTE_LINES = 120
_TAIL_LINES = 400
_GAP_LINES = 3

_HEAD_CHARACTERS = 10_000
_NUMBER = re.compile(r"\[e-?(?:book|text) ?#(\d{1,7})\]", re.I)
_LANGUAGE = re.compile(r"^Language: ([a-z]+)\s*$", re.I | re.M)
_LANGUAGES = dict(
    re.findall(
        r"(\w+):(\w+)",
        "english:en french:fr finnish:fi german:de dutch:nl italian:it spanish:es portuguese:pt "
        "hungarian:hu chinese:zh greek:el swedish:sv latin:la esperanto:eo danish:da catalan:ca "
        "polish:pl japanese:ja norwegian:no welsh:cy tagalog:tl czech:cs icelandic:is russian:ru",
    )
)

_START = re.compile(r"\s{0,9}\*{3} ?START OF (THE|THIS) PROJECT GUTENBERG", re.I)
_SMALL_PRINT = re.compile(r"\s{0,9}\*END ?\*? ?THE SMALL PRINT", re.I)
_END = re.compile(r"\s{0,9}\*{3} ?END OF (THE|THIS) PROJECT GUTENBERG", re.I)
_CLOSING = re.compile(r"\W{0,9}END OF (THE |THIS )?PROJECT GUTENBERG\b", re.I)
_CREDIT = re.compile(
    r"\W{0,3}((this )?(e-?(text|book)|file) (was )?)?(first )?"
    r"(produced|prepared|scanned|transcribed|typed|digiti[sz]ed|created|proofed|converted) "
    r"(by|from)\b"
    r"|\W{0,3}note: (project gutenberg|images of the original)"
    r"|\W{0,3}(html|text) version by\b|\W{0,3}updated editions will replace"
    r"|\W{0,3}this (e-?)?(text|book) (includes|contains|is intended|uses|was)\b"
    r"|\W{0,3}(original )?transcriber.{0,3}s? note",
    re.I,
)
_NOTE = re.compile(
    r"[\s*_=-]{0,9}((original )?transcriber.{0,3} notes?|errata noted by (the )?transcriber)"
    r"\W{0,9}$",
    re.I,
)
_RULE = re.compile(r"[\s*_=~.-]{1,200}$")


class Books:
    """Documents of .txt files, one a book, in the order of their paths.

    UTF-8, else Windows-1252 (of which Gutenberg's Latin-1 is a part), else Latin-1; the ends of
    lines are "\\n". A text in which no header of Project Gutenberg is found is kept whole. Ids are
    paths below the folder; address and language are what Gutenberg's header says.

    Source: the forms of headers and footers from 1991 to 2018, read in books of those years.
    """

    def __init__(self, config: BooksSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every .txt file; see `DocumentSource`."""
        config = self._config
        return raw_files(
            config.name, config.path, lambda name: name.lower().endswith(".txt"), kinds=".txt"
        )

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """The book, if it has text; see `DocumentSource`."""
        with file.open() as opened:
            data = opened.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            dropped.add(f"longer than {_MAX_BYTES:,} bytes", file.name)
        elif "\0" in (text := _decode(data)):
            dropped.add("no text: has NUL characters", file.name)
        elif not (book := strip_gutenberg(text)).strip():
            dropped.add("no text", file.name)
        else:
            yield Document(file.name, book, *_public_record(text))


def _public_record(text: str) -> tuple[str, str]:
    """Address and language (ISO 639-1) of a book whose header has its number; else empty."""
    head = text[:_HEAD_CHARACTERS]
    if not (number := _NUMBER.search(head)):
        return "", ""
    language = _LANGUAGE.search(head)
    code = _LANGUAGES.get(language[1].lower(), "") if language else ""
    return f"https://www.gutenberg.org/ebooks/{number[1]}", code


def strip_gutenberg(text: str) -> str:
    """The book itself: what stands between Gutenberg's header and its licence, less their credits.

    A text that holds several books, each with its header, gives them all, one after the other.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    starts = [number for number, line in enumerate(lines) if _START.match(line)]
    if not starts:
        # Before 2002 the licence came first, and only its last line told where the book began.
        small_print = (n for n, line in enumerate(lines[:_HEAD_LINES]) if _SMALL_PRINT.match(line))
        starts = [number for number in small_print if any(map(str.strip, lines[number + 1 :]))][:1]
    if not starts:
        return "\n".join(lines)
    bounds = zip(starts, [*starts[1:], len(lines)], strict=True)
    books = (_book(lines[start:stop]) for start, stop in bounds)
    return "\n\n\n\n".join(book for book in books if book)


def _book(lines: list[str]) -> str:
    """The text of lines that begin with a header's last."""
    first = 1
    if not lines[0].rstrip().endswith("*"):
        # A long title goes on, up to the asterisks that close it.
        more = (n for n in range(1, min(4, len(lines))) if lines[n].rstrip().endswith("***"))
        first += next(more, 0)
    body = lines[first : _end(lines)]
    body = _without_leading_notes(body)
    return "\n".join(_trimmed(_without_closing_notes(body)))


def _end(lines: list[str]) -> int:
    """Where the footer begins: at its last mark, as volumes of a book can each have their own."""
    ends = [number for number, line in enumerate(lines) if _END.match(line)]
    closings = [number for number, line in enumerate(lines) if _CLOSING.match(line)]
    if not ends:
        return closings[-1] if closings else len(lines)
    return next((number for number in closings if ends[-1] - 12 <= number), ends[-1])


def _without_leading_notes(lines: list[str]) -> list[str]:
    """Drops credits above the title, and notes under a heading of their own up to a wide gap."""
    at, kept, started = 0, [], False
    for _ in range(_HEAD_PARAGRAPHS):
        start = _skip(lines, at, blank=True)
        stop = _skip(lines, start, blank=False)
        if start == len(lines):
            break
        if _NOTE.match(lines[start]) and (end := _note_end(lines, stop)) is not None:
            at = end
        elif not started and _CREDIT.match(lines[start]):
            at = _bracket_end(lines, start) or stop
        else:
            started = True
            kept += lines[at:stop]
            at = stop
    return kept + lines[at:]


def _bracket_end(lines: list[str], start: int) -> int | None:
    """The line after a note in brackets, which can have several paragraphs."""
    if not lines[start].lstrip().startswith("["):
        return None
    ends = range(start, min(start + _NOTE_LINES, len(lines)))
    return next((n + 1 for n in ends if lines[n].rstrip().endswith("]")), None)


def _note_end(lines: list[str], start: int) -> int | None:
    """The wide gap at which a note ends, or None if it would be too long for a note."""
    at = _skip(lines, start, blank=True)
    for number in range(at, min(at + _NOTE_LINES, len(lines))):
        if not any(map(str.strip, lines[number : number + _GAP_LINES])):
            return number
    return None


def _without_closing_notes(lines: list[str]) -> list[str]:
    """Drops transcribers' notes that a book ends with."""
    earliest = max(len(lines) - _TAIL_LINES, len(lines) * 3 // 4)
    for number in range(earliest, len(lines)):
        if _NOTE.match(lines[number]):
            return lines[:number]
    return lines


def _trimmed(lines: list[str]) -> list[str]:
    """Without blank lines at both ends and the ornaments that set off a dropped note."""
    first, last = _skip(lines, 0, blank=True), len(lines)
    while last > first and _RULE.match(lines[last - 1] or " "):
        last -= 1
    return [*lines[first:last], ""] if last > first else []


def _skip(lines: list[str], at: int, *, blank: bool) -> int:
    while at < len(lines) and (not lines[at].strip()) == blank:
        at += 1
    return at


def _decode(data: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
