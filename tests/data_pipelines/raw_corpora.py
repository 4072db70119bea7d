"""A small raw file of every kind that sources read, for tests of how they read."""

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet
import zstandard

from llama_jax.config import (
    ArxivSource,
    BooksSource,
    CommonCrawlSource,
    FilesSource,
    GitHubSource,
    StackExchangeSource,
    WikipediaSource,
)
from tests.data_pipelines.github_rows import MIT, row
from tests.data_pipelines.seven_zip_archives import READ

_PAPER = b"\\documentclass{article}\\begin{document}\\section{A} A paper.\\end{document}"
_DUMP = b"""<mediawiki><page><title>One</title><ns>0</ns><id>1</id>
<revision><text>An article.</text></revision></page></mediawiki>"""
POSTS = b"""<posts>
<row Id="1" PostTypeId="1" Score="0" Body="A question." Title="Why?" />
</posts>"""


class Corpus(NamedTuple):
    """A raw file.

    Attributes:
        source: What reads it.
        name: Of the file.
        data: All of it.
    """

    source: type
    name: str
    data: bytes


def tar(members: dict[str, bytes]) -> bytes:
    """A tar of files by name; names may be no UTF-8, as `os.fsdecode` gives them."""
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def answer(text: str) -> bytes:
    """A page as a server sends it."""
    page = f"<html><body><article><p>{text}</p></article></body></html>"
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}".encode()


def warc_record(kind: str, block: bytes) -> bytes:
    """A record of a web archive."""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://x.org/\r\n"
    head += "WARC-Date: 2024-02-20T21:00:00Z\r\nContent-Type: application/http\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


_ANSWER = answer("A page with a text of its own.")
_RESPONSE = warc_record("response", _ANSWER)


def _lines(record: dict[str, object]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": ["a row"]}), file)
    return file.getvalue()


def _arc() -> bytes:
    head = b"filedesc://a.arc 0.0.0.0 20240220210000 text/plain 7\n1 1 IA\n\n"
    line = b"http://x.org/ 127.0.0.1 20240220210000 text/html %d\n" % len(_ANSWER)
    return head + line + _ANSWER + b"\n"


def _wacz() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/a.warc", _RESPONSE)
    return file.getvalue()


_ROW = _lines(row("a.py"))
_REPOSITORY = tar({"LICENSE": MIT.encode(), "a.py": b"x = 1\n"})
CORPORA = [
    Corpus(FilesSource, "a.txt", b"a text"),
    Corpus(FilesSource, "a.jsonl", _lines({"text": "a line"})),
    Corpus(FilesSource, "a.jsonl.gz", gzip.compress(_lines({"text": "a line"}))),
    Corpus(FilesSource, "a.jsonl.zst", zstandard.compress(_lines({"text": "a line"}))),
    Corpus(FilesSource, "a.parquet", _parquet()),
    Corpus(GitHubSource, "a.jsonl", _ROW),
    Corpus(GitHubSource, "a.tar", _REPOSITORY),
    Corpus(GitHubSource, "a.tar.gz", gzip.compress(_REPOSITORY)),
    Corpus(GitHubSource, "a.tar.bz2", bz2.compress(_REPOSITORY)),
    Corpus(BooksSource, "a.txt", b"A book."),
    Corpus(StackExchangeSource, "Posts.xml", POSTS),
    Corpus(StackExchangeSource, "Posts.xml.gz", gzip.compress(POSTS)),
    Corpus(StackExchangeSource, "Posts.xml.bz2", bz2.compress(POSTS)),
    Corpus(StackExchangeSource, "a.7z", READ["BZip2"]),
    Corpus(WikipediaSource, "a.xml", _DUMP),
    Corpus(WikipediaSource, "a.xml.gz", gzip.compress(_DUMP)),
    Corpus(WikipediaSource, "a.xml.bz2", bz2.compress(_DUMP)),
    Corpus(ArxivSource, "a.tar", tar({"1.gz": gzip.compress(_PAPER)})),
    Corpus(CommonCrawlSource, "a.warc", _RESPONSE),
    Corpus(CommonCrawlSource, "a.warc.gz", gzip.compress(_RESPONSE)),
    Corpus(CommonCrawlSource, "a.warc.zst", zstandard.compress(_RESPONSE)),
    Corpus(CommonCrawlSource, "a.wet.gz", gzip.compress(warc_record("conversion", b"A text."))),
    Corpus(CommonCrawlSource, "a.arc", _arc()),
    Corpus(CommonCrawlSource, "a.arc.gz", gzip.compress(_arc())),
    Corpus(CommonCrawlSource, "a.wacz", _wacz()),
]
