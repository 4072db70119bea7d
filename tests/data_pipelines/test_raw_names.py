"""Names of raw files are bytes, of any kind; ids of documents are text."""

import dataclasses
import gzip
import json
import os

import pyarrow.parquet
import pytest

from data_pipelines.runner import build
from llama_jax.config import ArxivSource, BooksSource, FilesSource, GitHubSource
from tests.data_pipelines.github_rows import MIT
from tests.data_pipelines.raw_corpora import tar
from tests.data_pipelines.small_build import Quiet

NAME = b"caf\xe9"
ODD = os.fsdecode(NAME)
PAPER = b"\\documentclass{article}\\begin{document}\\section{A} A paper.\\end{document}"


def write(path, data):
    """Writes a file where names may be no UTF-8; skips the test on systems that have no such."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")


def folder_of_texts(root):
    write(root / f"{ODD}.txt", b"a text")


def folder_of_damage(root):
    write(root / "a.txt", b"a text")
    write(root / f"{ODD}.jsonl", b"{")


def folder_of_books(root):
    write(root / f"{ODD}.txt", b"a book")


def repository(root):
    write(root / "r.tar", tar({"LICENSE": MIT.encode(), f"{ODD}.py": b"x = 1\n"}))


def checkout(root):
    write(root / "o" / ".git" / "HEAD", b"")
    write(root / "o" / "LICENSE", MIT.encode())
    write(root / "o" / f"{ODD}.py", b"x = 1\n")


def odd_checkout(root):
    write(root / ODD / ".git" / "HEAD", b"")
    write(root / ODD / "LICENSE", MIT.encode())


def papers(root):
    write(root / "p.tar", tar({f"{ODD}.gz": gzip.compress(PAPER)}))


def archive_of_papers(root):
    write(root / f"{ODD}.tar", tar({"1.gz": gzip.compress(PAPER)}))


@pytest.mark.parametrize(
    ("source", "make", "name"),
    [
        (FilesSource, folder_of_texts, r"caf\xe9.txt"),
        (FilesSource, folder_of_damage, r"caf\xe9.jsonl:1"),
        (BooksSource, folder_of_books, r"caf\xe9.txt"),
        (GitHubSource, repository, r"r.tar:caf\xe9.py"),
        (GitHubSource, checkout, r"o:caf\xe9.py"),
        (GitHubSource, odd_checkout, r"caf\xe9:LICENSE"),
        (ArxivSource, papers, r"p.tar:caf\xe9.gz"),
        (ArxivSource, archive_of_papers, r"caf\xe9.tar:1.gz"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_name_that_is_no_utf_8_is_escaped_and_ends_no_build(config, tmp_path, source, make, name):
    make(tmp_path / "raw")
    odd = source(name="odd", path=str(tmp_path / "raw"))
    config = dataclasses.replace(config, sources=(*config.sources, odd))
    summary, _ = build(config, tmp_path / "out", Quiet())
    named = {
        each for names in summary["sources"]["odd"]["dropped_examples"].values() for each in names
    }
    for path in (tmp_path / "out" / "documents").glob("odd-*.parquet"):
        named |= set(pyarrow.parquet.read_table(path)["id"].to_pylist())
    assert name in named
    json.dumps(summary, ensure_ascii=False).encode()
