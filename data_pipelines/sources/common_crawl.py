"""Pages of CommonCrawl and of other web archives: WARC, WET, ARC and WACZ."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from llama_jax.config import CommonCrawlSource

from ..document import Document, Dropped, RawFile
from . import http_response
from .arc import arc_records
from .folder import raw_files
from .html_blocks import MAX_TAGS, TooManyTagsError
from .html_text import html_to_text
from .warc import Record, warc_records

_COMPRESSION = r"(\.gz|\.zst|\.lz4)?"
_FORMATS = {
    "warc": re.compile(rf"(?i).*\.warc{_COMPRESSION}"),
    "wet": re.compile(rf"(?i).*\.wet{_COMPRESSION}"),
    "arc": re.compile(r"(?i).*\.arc(\.gz)?"),
    "wacz": re.compile(r"(?i).*\.wacz"),
}
_ENDING = re.compile(rf"(?i)(\.warc)?(\.wet)?{_COMPRESSION}$")
_READ_AS_WARC = "WET of a WARC that is read"
_MAX_PAGE_BYTES = 8 << 20
# Deflate makes a thousandth of zeros, and a fifth of pages.
_MAX_EXPANSION = 100
# Of other methods one can ask for gigabytes; the format wants none at all.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 1
# zipfile has all of these for what it does not know, and for names that are no text.
_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,
    UnicodeDecodeError,
)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"\s*<(!doctype\s+html|html|head|title|body)\b", re.I)


class CommonCrawl:
    """Pages of every archive below a folder, in the order of the names.

    Of WARC, ARC and WACZ the HTML pages that were answered with status 200, as text; of WET the
    texts as they are. Ids are file and byte at which the record begins:
    "CC-MAIN-2024-10.warc.gz:8912". The metadata has the date at which a page was fetched.
    """

    def __init__(self, config: CommonCrawlSource):
        self._config = config
        self._patterns = [_FORMATS[name] for name in config.formats]

    def files(self) -> Iterator[RawFile]:
        """Every archive; of a WARC and a WET with the same pages the WARC is read."""
        found = list(
            raw_files(
                self._config.name,
                self._config.path,
                lambda name: any(pattern.fullmatch(name) for pattern in self._patterns),
                kinds=" or ".join(f".{name}" for name in self._config.formats),
            )
        )
        warcs = {_crawled(file.name) for file in found if _FORMATS["warc"].fullmatch(file.name)}
        for file in found:
            has_warc = _FORMATS["wet"].fullmatch(file.name) and _crawled(file.name) in warcs
            yield file._replace(unread=_READ_AS_WARC) if has_warc else file

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every page with text; see `DocumentSource`."""
        if file.unread:
            dropped.add(file.unread, file.name)
            return
        found = False
        try:
            with file.open() as raw:
                for name, record in _records(raw, file.name, dropped):
                    found = True
                    key = f"{name}:{record.place}"
                    try:
                        text = self._text(record)
                    except _RefusedError as error:
                        dropped.add(str(error), key)
                        continue
                    yield Document(key, text, record.url, metadata=(("date", record.date),))
        except _DAMAGE as error:
            dropped.add_bad(
                f"file damaged, the rest of it is lost ({type(error).__name__})", file.name
            )
        if not found:
            dropped.add("no page in the file", file.name)

    def _text(self, record: Record) -> str:
        if record.kind == "conversion":
            text = record.block.decode("utf-8", "replace")
        else:
            try:
                text = html_to_text(page_html(record), main_content=self._config.main_content)
            except TooManyTagsError as error:
                raise _RefusedError(f"page of more than {MAX_TAGS:,} tags") from error
        if not (text := text.strip()):
            raise _RefusedError("no text")
        return text


def _crawled(name: str) -> PurePosixPath:
    """What an archive has in common with those of other formats: a WET lies in "wet/"."""
    path = PurePosixPath(name)
    folders = ("warc" if folder == "wet" else folder for folder in path.parent.parts)
    return PurePosixPath(*folders, _ENDING.sub("", path.name))


class _RefusedError(Exception):
    """Why a record gives no document."""


def _records(file: BinaryIO, name: str, dropped: Dropped) -> Iterator[tuple[str, Record]]:
    """Records with the name of their file, which goes on inside a WACZ: "a.wacz/archive/b.warc"."""
    if _FORMATS["wacz"].fullmatch(name):
        yield from _wacz_records(file, name, dropped)
        return
    read = arc_records if _FORMATS["arc"].fullmatch(name) else warc_records
    for record in read(file, name, dropped):
        yield name, record


def _wacz_records(file: BinaryIO, name: str, dropped: Dropped) -> Iterator[tuple[str, Record]]:
    """Records of the archives in a WACZ; nothing is unpacked to disk."""
    with zipfile.ZipFile(file) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            inner = f"{name}/{entry.filename}"
            if not any(_FORMATS[kind].fullmatch(inner) for kind in ("warc", "arc")):
                continue
            if reason := _why_not(entry):
                dropped.add(f"WACZ: archive {reason}", inner)
                continue
            try:
                with archive.open(entry) as opened:
                    yield from _records(cast(BinaryIO, opened), inner, dropped)
            except _DAMAGE as error:
                dropped.add_bad(
                    f"WACZ: archive damaged, the rest of it is lost ({type(error).__name__})", inner
                )


def _why_not(entry: zipfile.ZipInfo) -> str:
    """Why an archive of a WACZ is not read; empty if it is."""
    path = PurePosixPath(entry.filename)
    if not path.is_relative_to("archive") or ".." in path.parts:
        return "outside archive/"
    if entry.file_size > _MAX_EXPANSION * entry.compress_size + _MAX_PAGE_BYTES:
        return "expands too much"
    if entry.flag_bits & _IS_ENCRYPTED:
        return "encrypted"
    if entry.compress_type not in _ZIP_METHODS:
        return "neither stored nor deflated"
    return ""


def page_html(record: Record) -> str:
    """The page of a record.

    Raises:
        _RefusedError: If it is no page, or a larger one than is read.
    """
    response = http_response.parse(record.block)
    if response.status not in (0, 200):
        raise _RefusedError("not answered with status 200")
    content_type = response.headers.get("content-type", "")
    if not response.status and not record.content_type.startswith("application/http"):
        content_type = record.content_type
    kind = content_type.lower().replace(";", " ").partition(" ")[0]
    if kind and kind not in _HTML_TYPES:
        raise _RefusedError("not HTML")
    body = http_response.decoded_body(response, _MAX_PAGE_BYTES)
    if body is None:
        raise _RefusedError(f"page of more than {_MAX_PAGE_BYTES:,} bytes")
    if not kind and not _LOOKS_LIKE_HTML.match(body):
        raise _RefusedError("not HTML")
    return http_response.decode_text(body, content_type)
