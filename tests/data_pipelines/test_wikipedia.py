"""A dump gives each article once, as text; whatever else it holds is named, and costs no memory."""

import bz2
import gzip
import re
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.wikitext import read
from data_pipelines.document import Dropped
from data_pipelines.runner import build
from data_pipelines.sources import open_source, read_all, wikipedia
from llama_jax.config import BuildConfig, TokenizerTraining, WikipediaSource
from llama_jax.recipe import from_json, to_json
from tests.data_pipelines.small_build import Quiet

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "wikipedia"
SITE = """<siteinfo><namespaces><namespace key="0" /><namespace key="1">Talk</namespace>
<namespace key="6">Berkas</namespace></namespaces></siteinfo>"""


def page(number, title, text, ns="<ns>0</ns>", extra="", model=""):
    return (
        f"<page><title>{title}</title>{ns}<id>{number}</id>{extra}<revision><id>9{number}</id>"
        f"<contributor><id>8</id></contributor>{model}"
        f'<text xml:space="preserve">{text}</text></revision></page>\n'
    )


def dump(*pages, site=SITE):
    return f'<mediawiki version="0.11">{site}{"".join(pages)}</mediawiki>'.encode()


def collect(path, **options):
    dropped = Dropped()
    source = open_source(WikipediaSource(path=str(path), **options))
    return {document.id: document.text for document in read_all(source, dropped)}, dropped


ARTICLES = dump(page(1, "One", "first &amp;amp; [[two]]"), page(2, "Two: 2", "second"))
TEXTS = ["One\nfirst & two", "Two: 2\nsecond"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.xml", ARTICLES),
        ("a.xml.gz", gzip.compress(ARTICLES)),
        ("a.xml.bz2", bz2.compress(ARTICLES[:300]) + bz2.compress(ARTICLES[300:])),
        ("wiki-pages-articles1.xml-p1p9.bz2", bz2.compress(ARTICLES)),
        ("a.xml", ARTICLES.decode().encode("utf-16")),
    ],
)
def test_articles_come_under_file_page_and_title(tmp_path, name, data):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_bytes(data)
    (tmp_path / "other.txt").write_text("no dump")
    documents, dropped = collect(tmp_path)
    assert list(documents) == [f"sub/{name}:1:One", f"sub/{name}:2:Two: 2"]
    assert list(documents.values()) == TEXTS
    assert not dropped.counts
    assert list(collect(tmp_path / "sub" / name)[0].values()) == TEXTS


def test_the_benchmark_measures_the_articles_that_a_build_reads(tmp_path):
    (tmp_path / "a.xml").write_bytes(dump(page(1, "A", "one"), page(2, "B", "no", ns="<ns>1</ns>")))
    assert read(tmp_path / "a.xml") == ["one"]


def test_only_articles_are_taken_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(wikipedia, "_MAX_PAGE_CHARS", 500)
    (tmp_path / "a.xml").write_bytes(
        dump(
            page(1, "A", "kept [[Berkas:x.jpg|caption]]"),
            page(2, "Talk:A", "no", ns="<ns>1</ns>"),
            page(3, "Talk:B", "no", ns=""),
            page(4, "C: D", "kept too", ns=""),
            page(5, "E", "no", ns="<ns>77</ns>"),
            page(6, "F", "no", extra='<redirect title="A" />'),
            page(7, "G", "#RINVIA [[A]]"),
            page(8, "H", "{}", model="<model>json</model>"),
            page(9, "I", "{{x}}"),
            page(10, "J", "long " * 101),
            "<page><title>J2</title><ns>0</ns><id>102</id></page>",
            page(11, "K" * 1001, "no"),
            page(12, "L", "kept three", model="<model>wikitext</model>"),
        )
    )
    documents, dropped = collect(tmp_path)
    assert documents == {
        "a.xml:1:A": "A\nkept",
        "a.xml:4:C: D": "C: D\nkept too",
        "a.xml:12:L": "L\nkept three",
    }
    assert dropped.examples == {
        "not an article (namespace 1)": ["a.xml:2:Talk:A", "a.xml:3:Talk:B"],
        "not an article (namespace that it does not declare)": ["a.xml:5:E"],
        "redirect": ["a.xml:6:F", "a.xml:7:G"],
        "not wikitext": ["a.xml:8:H"],
        "no text": ["a.xml:9:I", "a.xml:102:J2"],
        "longer than 500 characters": ["a.xml:10:J", "a.xml:11:"],
    }


def test_the_last_revision_is_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(wikipedia, "_MAX_PAGE_CHARS", 500)
    (tmp_path / "a.xml").write_bytes(
        dump(
            "<page><title>A</title><ns>0</ns><id>1</id><revision><text>"
            f"{'old' * 500}</text></revision>"
            "<revision><id>5</id><text>new</text></revision></page>"
        )
    )
    assert collect(tmp_path)[0] == {"a.xml:1:A": "A\nnew"}


BOMB = b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + ARTICLES.replace(b"two", b"&b;")


@pytest.mark.parametrize(
    ("name", "data", "num_documents", "reason"),
    [
        ("a.xml", ARTICLES[:-80], 1, "(ExpatError)"),
        ("a.xml.gz", gzip.compress(ARTICLES)[:-20], 1, "(EOFError)"),
        ("a.xml.bz2", bz2.compress(ARTICLES) + bz2.compress(ARTICLES)[:60], 2, "Error)"),
        ("a.xml.bz2", b"no bzip2", 0, "(OSError)"),
        ("a.xml", ARTICLES.replace(b"second", b"\xff"), 1, "(ExpatError)"),
        ("a.xml", BOMB, 0, "(it declares a DOCTYPE)"),
        ("a.xml", ARTICLES.replace(b"second", b"<a>" * 99), 1, "(tags nested deeper than 50)"),
        ("a.xml", b"", 0, "(ExpatError)"),
    ],
)
def test_a_damaged_dump_is_named_and_gives_what_came_before(
    tmp_path, name, data, num_documents, reason
):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "b.xml").write_bytes(ARTICLES)
    documents, dropped = collect(tmp_path)
    (found,) = dropped.counts
    assert found.startswith("file damaged")
    assert found.endswith(reason)
    assert dropped.examples[found] == [name]
    assert list(documents.values())[:-2] == TEXTS[:num_documents]
    assert list(documents.values())[-2:] == TEXTS


def test_other_xml_is_named(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<feed><title>x</title></feed>")
    documents, dropped = collect(tmp_path)
    assert not documents
    assert dropped.examples == {"no page in the file": ["a.xml"]}


@pytest.mark.parametrize(
    "huge",
    [
        pytest.param(lambda size: page(2, "X", "a " * size), id="page"),
        pytest.param(lambda size: page(2, "X" * 2 * size, "a"), id="title"),
        pytest.param(lambda size: f"<!--{' ' * 2 * size}-->", id="comment"),
        pytest.param(lambda size: f'<x y="{"z" * 2 * size}" />', id="attribute"),
        pytest.param(lambda size: page(2, "X", "a " * 9000) * (size // 9000), id="pages"),
    ],
)
def test_memory_does_not_grow_with_the_dump(tmp_path, huge, monkeypatch):
    monkeypatch.setattr(wikipedia, "_MAX_PAGE_CHARS", 100_000)
    monkeypatch.setattr(wikipedia, "_MAX_TOKEN_BYTES", 500_000)
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(dump(page(1, "One", "first"), huge(4_000_000))))
    source, dropped = open_source(WikipediaSource(path=str(path))), Dropped()
    tracemalloc.start()
    first = next(read_all(source, dropped))
    for _ in read_all(source, dropped):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.text == "One\nfirst"
    assert peak < 5_000_000


def test_a_folder_without_dumps_is_refused(tmp_path):
    (tmp_path / "a.xml.7z").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sources\.wikipedia\.path=.* holds no \.xml"):
        collect(tmp_path)
    with pytest.raises(ValueError, match=r"sources\.w\.path='/no': there is no such file"):
        collect("/no", name="w")
    with pytest.raises(ValueError, match=r"sources\.wikipedia\.max_bytes must be zero or more"):
        WikipediaSource(max_bytes=-1)


def test_a_dump_is_built_into_shards_and_its_config_comes_back(tmp_path):
    words = re.findall(r"\w+", "the quick brown fox jumps over lazy dogs while wise owls look on")
    pages = [
        page(i, f"T{i}", " ".join(words[(i * 7 + j * j) % len(words)] for j in range(40)))
        for i in range(100)
    ]
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(dump(*pages)))
    config = BuildConfig(
        name="wiki",
        sources=(WikipediaSource(path=str(tmp_path / "a.xml.bz2")),),
        tokenizer=TokenizerTraining(vocab_size=320, sample_bytes=20_000),
        held_out_fraction=0.2,
    )
    assert from_json(to_json(config), BuildConfig) == config
    summary, _ = build(config, tmp_path / "out", Quiet())
    splits = summary["sources"]["wikipedia"]["splits"]
    assert sum(split["documents"] for split in splits.values()) == 100


def corpus_articles(pattern):
    if not (paths := list(CORPUS.glob(pattern))):
        pytest.skip(f"needs wikipedia/{pattern} in ../shared/corpora")
    documents, dropped = collect(paths[0])
    return {key.split(":", 2)[2]: text for key, text in documents.items()}, dropped


def test_real_english_articles_read_as_prose():
    articles, dropped = corpus_articles("piskvorky+gensim/enwiki-latest-*.bz2")
    assert len(articles) == 106
    assert dropped.counts == {"redirect": 99, "not an article (namespace 4)": 1}
    anarchism = articles["Anarchism"]
    assert anarchism.startswith("Anarchism\nAnarchism is a political philosophy that advocates ")
    assert "\nEtymology and terminology\nThe term anarchism is a compound word" in anarchism
    for markup in ("[[", "]]", "''", "{|", "|}", "<ref", "</", "&nbsp;", "thumb|", "\n=", "\n*"):
        assert not any(markup in text for text in articles.values()), markup


@pytest.mark.parametrize(
    ("pattern", "title", "start"),
    [
        ("diegoceccarelli*/*small-test.xml.bz2", "Agricoltura", "L'agricoltura è l'attività"),
        ("piskvorky*/bgwiki-*.bz2", "Григориански календар", "Григорианският календар (понякога"),
    ],
)
def test_real_dumps_of_other_languages_and_schemas_are_read(pattern, title, start):
    articles, _ = corpus_articles(pattern)
    assert articles[title].startswith(f"{title}\n{start}")
    assert not any(name in articles[title] for name in ("Категория:", "Categoria:", "File:"))
