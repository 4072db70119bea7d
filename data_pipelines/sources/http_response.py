"""HTTP responses as crawlers recorded them: header, body, characters."""

import re
import zlib
from typing import NamedTuple

_MAX_HEADER_BYTES = 1 << 16
_MAX_CODINGS = 3
_PIECE_BYTES = 1 << 14
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\S+ +(\d{3})")
_CHUNK_SIZE = re.compile(rb"\r?\n?([\da-fA-F]{1,8})[^\r\n]*\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_META_CHARSET = re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
# As much as a browser looks through is 1,024; pages with scripts in front have it later.
_META_BYTES = 4096
_DETECTION_BYTES = 1 << 16
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class Response(NamedTuple):
    """A response taken apart.

    Attributes:
        status: 0 where there is no status line.
        headers: By lower-case name; of several with one name the first.
        body: As it was transferred.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def parse(block: bytes) -> Response:
    """Takes a response apart; one without a header is all body."""
    if not (status := _STATUS.match(block)):
        return Response(0, {}, block)
    end = _HEADER_END.search(block, 0, _MAX_HEADER_BYTES)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    headers: dict[str, str] = {}
    for line in head[:_MAX_HEADER_BYTES].decode("latin-1").splitlines()[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return Response(int(status[1]), headers, body)


def decoded_body(response: Response, max_bytes: int) -> bytes | None:
    """The body without transfer and content codings; None if it is more than `max_bytes`.

    Crawlers often recorded the decoded body with the header that it came with: a body that is not
    in the coding that it claims is taken as it is. Of one that is cut short comes what there is.
    """
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    codings = response.headers.get("content-encoding", "").lower().split(",")
    for coding in reversed(codings[-_MAX_CODINGS:]):
        body = _decompress(body, coding.strip(), max_bytes)
        if len(body) > max_bytes:
            return None
    return body if len(body) <= max_bytes else None


def decode_text(body: bytes, content_type: str) -> str:
    """Characters of a page.

    A byte order mark decides; else a page that is valid UTF-8 is UTF-8, whatever it claims (no
    other text is, by chance); else the charset of the header, then of a meta tag, then a guess.
    Bytes without a character become U+FFFD.

    Source: WHATWG HTML, "determining the character encoding", which trusts the header before it
    looks at the bytes; labels are those of WHATWG Encoding.
    """
    from resiliparse.parse.encoding import detect_encoding

    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    # ISO-2022 and UTF-16 are made of bytes that are valid UTF-8.
    if b"\x1b" not in body and b"\0" not in body:
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    declared = _CHARSET.search(content_type)
    in_page = _META_CHARSET.search(body[:_META_BYTES])
    for label in (declared and declared[1], in_page and in_page[1].decode("latin-1")):
        if label and (encoding := _encoding(label)):
            # A page that could be read to find "utf-16" in it is not in UTF-16.
            return body.decode("utf-8" if in_page and "utf-16" in encoding else encoding, "replace")
    return body.decode(detect_encoding(body[:_DETECTION_BYTES]) or "cp1252", "replace")


def _encoding(label: str) -> str | None:
    """Python's codec of a label that browsers know."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    return map_encoding_to_html5(label, False)


def _unchunk(body: bytes) -> bytes:
    parts, at = [], 0
    while header := _CHUNK_SIZE.match(body, at):
        size = int(header[1], 16)
        at = header.end() + size
        if size == 0:
            break
        parts.append(body[header.end() : at])
    return b"".join(parts) if parts else body


def _decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """What `body` holds, or a little more than `max_bytes` of it."""
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, 31, max_bytes) or body
    if coding == "deflate":
        # Some servers leave the header of zlib away.
        return _inflate(body, 15, max_bytes) or _inflate(body, -15, max_bytes) or body
    if coding == "br":
        import brotli

        try:
            return brotli.Decompressor().process(body, output_buffer_limit=max_bytes + 1) or body
        except brotli.error:
            return body
    return body


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    parts, missing = [], max_bytes + 1
    decompressor = zlib.decompressobj(window)
    # In pieces: what comes before damage would be lost with the whole.
    for start in range(0, len(body), _PIECE_BYTES):
        try:
            part = decompressor.decompress(body[start : start + _PIECE_BYTES], missing)
        except zlib.error:
            break
        parts.append(part)
        missing -= len(part)
        if missing <= 0 or decompressor.eof:
            break
    return b"".join(parts)
