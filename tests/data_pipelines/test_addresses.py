"""A document has the public address and the language that its raw data name."""

import gzip
import io
import json
import tarfile

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.cli.main import main
from llama_jax.config import ArxivSource, BooksSource, StackExchangeSource, WikipediaSource

WIKI = (
    '<mediawiki version="0.11"{lang}><siteinfo>{base}</siteinfo><page><title>Ann &amp; C++?</title>'
    "<ns>0</ns><id>7</id><revision><text>Some text.</text></revision></page></mediawiki>"
)
BASE = "<base>https://de.wikipedia.org/wiki/Hauptseite</base>"
ARTICLE = "https://de.wikipedia.org/wiki/Ann_%26_C%2B%2B%3F"
HEADER = (
    "The Project Gutenberg EBook of A Book\n\n{}\n\n*** START OF THIS PROJECT GUTENBERG EBOOK ***\n"
)
POSTS = '<posts><row Id="17" PostTypeId="1" Score="0" Title="Why?" Body="So." /></posts>'


def provenance(config):
    (document,) = read_all(open_source(config), dropped := Dropped())
    assert not dropped.counts
    return document.url, document.language


@pytest.mark.parametrize(
    ("lang", "base", "found"),
    [
        (' xml:lang="de"', BASE, (ARTICLE, "de")),
        (' xml:lang="zh-Hant"', "", ("", "zh")),
        (' xml:lang="nds"', BASE, (ARTICLE, "")),
        ("", "<base>javascript:alert(1)/x</base>", ("", "")),
        ("", "<base>nowhere</base>", ("", "")),
    ],
)
def test_an_article_is_at_its_wiki_and_in_its_language(tmp_path, lang, base, found):
    (tmp_path / "a.xml").write_text(WIKI.format(lang=lang, base=base))
    assert provenance(WikipediaSource(path=str(tmp_path))) == found


@pytest.mark.parametrize(
    ("member", "url"),
    [
        ("2406/2406.00001.gz", "https://arxiv.org/abs/2406.00001"),
        ("0704/0704.0001.gz", "https://arxiv.org/abs/0704.0001"),
        ("0303/math0303004.gz", "https://arxiv.org/abs/math/0303004"),
        ("0309/cond-mat0309136.gz", "https://arxiv.org/abs/cond-mat/0309136"),
        ("papers/mine.gz", ""),
        ("2406/2406.1.gz", ""),
    ],
)
def test_a_paper_is_at_arxiv_by_its_number(tmp_path, member, url):
    paper = gzip.compress(b"\\documentclass{a}\\begin{document}\\section{A} Text.\\end{document}")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(paper)
        tar.addfile(info, io.BytesIO(paper))
    assert provenance(ArxivSource(path=str(tmp_path))) == (url, "")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Release Date: 2006 [EBook #76]\n\nLanguage: English\n", ("76", "en")),
        ("[Etext #76]", ("76", "")),
        ("[eBook #76]\r\nLanguage: French\r\n", ("76", "fr")),
        ("[eBook #76]\nLanguage: Klingon\n", ("76", "")),
        ("Language: English\n", ("", "")),
    ],
)
def test_a_book_is_at_gutenberg_by_its_number(tmp_path, header, found):
    (tmp_path / "a.txt").write_text(HEADER.format(header) + "It rained.\n", newline="")
    url = f"https://www.gutenberg.org/ebooks/{found[0]}" if found[0] else ""
    assert provenance(BooksSource(path=str(tmp_path))) == (url, found[1])


@pytest.mark.parametrize(
    ("path", "site", "language"),
    [
        ("coffee.stackexchange.com/Posts.xml", "coffee.stackexchange.com", ""),
        ("coffee.stackexchange.com.7z/Posts.xml", "coffee.stackexchange.com", ""),
        ("stackoverflow.com-Posts.xml", "stackoverflow.com", "en"),
        ("es.stackoverflow.com/Posts.xml", "es.stackoverflow.com", "es"),
        ("meta.askubuntu.com/Posts.xml", "meta.askubuntu.com", ""),
        ("notstackoverflow.com/Posts.xml", "", ""),
        ("coffee/Posts.xml", "", ""),
    ],
)
def test_a_question_is_at_the_site_that_its_path_names(tmp_path, path, site, language):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(POSTS)
    url = f"https://{site}/questions/17" if site else ""
    # By its folder, and by a path that ends at it.
    for source in (tmp_path, file.parent, file):
        assert provenance(StackExchangeSource(path=str(source))) == (url, language)


def test_inspect_and_the_report_show_them(tmp_path, capsys):
    (tmp_path / "a.xml").write_text(
        WIKI.format(lang=' xml:lang="de"', base=BASE).replace("Some", "Some more " * 100)
    )
    out = tmp_path / "out"
    build = ["data", "build", "wikipedia", "--input", str(tmp_path / "a.xml"), "--out", str(out)]
    small = ["--tokenizer.vocab-size", "300", "--held-out-fraction", "0", "--workers", "1"]
    assert main([*build, *small]) == 0
    capsys.readouterr()
    assert main(["data", "inspect", str(out), "--document", "0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["url"], shown["language"]) == (ARTICLE, "de")
    report = json.loads((out / "report.json").read_text())
    assert report["sources"]["wikipedia"]["languages"] == {"de": 1}
