"""A question comes with its answers in their order, in bounded memory, from hostile dumps too."""

import bz2
import gzip
import sqlite3
import tempfile
import tracemalloc
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all, scratch, stack_exchange
from data_pipelines.sources.post_html import html_to_text
from llama_jax.config import BuildConfig, StackExchangeSource, TokenizerFile
from llama_jax.recipe import from_json, to_json
from tests.data_pipelines.seven_zip_archives import READ

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "stackexchange"


def row(**attributes):
    return f"  <row {' '.join(f'{k}={quoteattr(str(v))}' for k, v in attributes.items())} />\n"


def question(number, title="Why?", body="<p>It is so.</p>", score=0):
    return row(Id=number, PostTypeId=1, Score=score, Body=body, Title=title)


def answer(number, parent, body="<p>Because.</p>", score=0):
    return row(Id=number, PostTypeId=2, ParentId=parent, Score=score, Body=body)


def dump(*rows):
    head = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
    return (head + "".join(rows) + "</posts>").encode()


def collect(path, **options):
    dropped = Dropped()
    source = open_source(StackExchangeSource(path=str(path), **options))
    return {d.id: d.text for d in read_all(source, dropped)}, dropped


@pytest.fixture
def posts(tmp_path):
    return tmp_path / "Posts.xml"


def test_answers_come_by_score_and_ties_by_id(posts):
    rows = [
        question(10, "Why & how?", "<p>I <b>ask</b> &amp; wait.</p>"),
        answer(14, 10, "fourteen", score=3),
        answer(9, 10, "nine", score=-1),
        answer(12, 10, "twelve", score=10),
        answer(13, 10, "thirteen", score=3),
    ]
    posts.write_bytes(dump(*rows))
    expected = {
        "Posts.xml:10": "Q: Why & how?\n\nI ask & wait.\n\nA: twelve\n\nA: thirteen\n\n"
        "A: fourteen\n\nA: nine"
    }
    assert collect(posts)[0] == expected
    posts.write_bytes(dump(*reversed(rows)))
    assert collect(posts)[0] == expected


def test_questions_come_by_number_and_keep_to_their_own_answers(posts):
    posts.write_bytes(dump(question(2), question(1), answer(4, 1, "one"), answer(3, 2, "two")))
    documents, _ = collect(posts)
    assert list(documents) == ["Posts.xml:1", "Posts.xml:2"]
    assert documents["Posts.xml:1"].endswith("A: one")
    assert documents["Posts.xml:2"].endswith("A: two")


def test_the_best_answers_are_taken_and_the_rest_counted(posts):
    rows = [question(1), *(answer(n, 1, f"at {n}", score=n) for n in (2, 3, 4, 5))]
    posts.write_bytes(dump(*rows, question(6, score=-1), answer(7, 6, score=9)))
    documents, dropped = collect(posts, min_score=0, max_answers=2)
    assert documents == {"Posts.xml:1": "Q: Why?\n\nIt is so.\n\nA: at 5\n\nA: at 4"}
    assert dropped.examples == {
        "a score below min_score": ["Posts.xml:6"],
        "an answer without its question": ["Posts.xml:7"],
        "an answer beyond max_answers": ["Posts.xml:3", "Posts.xml:2"],
    }
    assert collect(posts, max_answers=0)[0]["Posts.xml:1"] == "Q: Why?\n\nIt is so."


def test_rows_that_are_no_post_are_counted_and_named(posts):
    posts.write_bytes(
        dump(
            question(1),
            answer(2, 1, "first"),
            answer(2, 1, "second"),
            answer(3, 99),
            row(Id=4, PostTypeId=5, Body="a wiki of a tag"),
            row(Id=5, PostTypeId=1, Score="many", Body="x"),
            row(PostTypeId=1, Body="x"),
            question(6, body="<p> </p>"),
            row(Id=9**30, PostTypeId=1, Body="x"),
            row(Id=7, PostTypeId=2, Body="x"),
        )
    )
    documents, dropped = collect(posts)
    assert documents == {"Posts.xml:1": "Q: Why?\n\nIt is so.\n\nA: first"}
    assert dropped.examples == {
        "neither question nor answer": ["Posts.xml:4"],
        "no valid score": ["Posts.xml:5"],
        "a row without an Id": ["Posts.xml", "Posts.xml"],
        "no text": ["Posts.xml:6"],
        "an answer without its question": ["Posts.xml:7", "Posts.xml:3"],
        "the same id as another post": ["Posts.xml:2"],
    }


def test_compressed_dumps_give_the_same_documents_under_their_own_names(tmp_path):
    data = dump(question(1), answer(2, 1))
    for name, content in (
        ("a/Posts.xml", data),
        ("b/Posts.xml.bz2", bz2.compress(data)),
        ("c/site-Posts.xml.gz", gzip.compress(data)),
        ("c/Comments.xml", b"<comments/>"),
        ("coffee.stackexchange.com.7z", READ["BZip2"]),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    documents, dropped = collect(tmp_path)
    assert list(documents) == [
        "a/Posts.xml:1",
        "b/Posts.xml.bz2:1",
        "c/site-Posts.xml.gz:1",
        "coffee.stackexchange.com.7z/Posts.xml:1",
    ]
    assert len(set([*documents.values()][:3])) == 1
    assert not dropped.counts


def test_a_missing_folder_and_one_without_posts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"sources\.stack_exchange\.path='': there is no such"):
        collect("")
    with pytest.raises(ValueError, match=r"holds no Posts\.xml, .* or \.7z file"):
        collect(tmp_path)


BOMB = (
    '<!DOCTYPE posts [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            dump(question(1)).replace(b"<posts>", f"{BOMB}<posts>".encode()).replace(b"so", b"&c;"),
            "it declares a document type or entities",
            id="entities",
        ),
        pytest.param(dump(question(1), "<a><b><c><d>" * 999), "nested elements", id="nested"),
        pytest.param(
            dump(question(1), *(f'<row a{n}="" />' for n in range(9999))),
            "more than 1000 names of attributes",
            id="names",
        ),
        pytest.param(dump(question(1))[:-30], "ExpatError", id="cut"),
        pytest.param(dump(question(1), "\x00"), "ExpatError", id="a zero byte"),
        pytest.param(dump(question(1)) + b"\xff", "ExpatError", id="no UTF-8"),
        pytest.param(b"", "ExpatError", id="empty"),
        pytest.param(
            dump(question(1), " " * (5 << 20)), "no row in 4,194,304 bytes", id="a bomb of spaces"
        ),
        pytest.param(
            dump(question(1), question(2, body="x" * (5 << 20))),
            "no row in 4,194,304 bytes",
            id="a long row",
        ),
    ],
)
def test_a_damaged_dump_is_named_and_the_next_is_read(tmp_path, data, reason):
    (tmp_path / "a.posts.xml.gz").write_bytes(gzip.compress(data, 1))
    (tmp_path / "b.posts.xml").write_bytes(dump(question(7)))
    documents, dropped = collect(tmp_path)
    assert "b.posts.xml:7" in documents
    assert f"file damaged, the rest of it is lost ({reason})" in dropped.counts
    (name,) = {name for names in dropped.examples.values() for name in names if ":" not in name}
    assert name == "a.posts.xml.gz"
    whole_row_before = b"/>" in data and b"DOCTYPE" not in data
    assert ("a.posts.xml.gz:1" in documents) == whole_row_before


@pytest.mark.parametrize("cut", [bz2.compress, gzip.compress])
def test_an_archive_cut_short_gives_what_came_before(tmp_path, cut):
    suffix = ".bz2" if cut is bz2.compress else ".gz"
    data = cut(dump(*(question(n, body=f"{n}" * 99) for n in range(1, 2000))))
    (tmp_path / f"Posts.xml{suffix}").write_bytes(data[:-20])
    documents, dropped = collect(tmp_path)
    assert dropped.examples == {
        "file damaged, the rest of it is lost (EOFError)": [f"Posts.xml{suffix}"]
    }
    assert documents or suffix == ".bz2"


def test_memory_and_temporary_files_do_not_grow_with_the_dump(posts, tmp_path, monkeypatch):
    """Eight times the posts take no more of Python's memory, and leave nothing behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    peaks = []
    for copies in (1, 8):
        rows = [question(n, body="word " * 200) for n in range(1, 100 * copies)]
        posts.write_bytes(dump(*rows))
        source = open_source(StackExchangeSource(path=str(posts)))
        tracemalloc.start()
        documents = read_all(source, Dropped())
        first = next(documents)
        assert list(folder.iterdir())
        count = 1 + sum(1 for _ in documents)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == len(rows)
        assert first.id == "Posts.xml:1"
        assert not list(folder.iterdir())
    assert peaks[1] < 1.15 * peaks[0]


def test_an_answer_past_the_size_of_a_document_is_counted(posts, monkeypatch):
    monkeypatch.setattr(stack_exchange, "_MAX_DOCUMENT_CHARS", 100)
    posts.write_bytes(dump(question(1), answer(2, 1, "x" * 90, score=1), answer(3, 1, "short")))
    documents, dropped = collect(posts)
    assert documents["Posts.xml:1"].endswith("A: short")
    assert dropped.examples == {"an answer beyond 100 characters": ["Posts.xml:2"]}


def test_a_full_disk_says_where_and_what_to_do(posts, monkeypatch):
    def full(path, **_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(scratch.sqlite3, "connect", full)
    posts.write_bytes(dump(question(1)))
    with pytest.raises(OSError, match=r"disk is full, in .*Set TMPDIR to a folder with room"):
        collect(posts)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>One\ntwo.</p>\n\n<p>Three.</p>", "One two.\n\nThree."),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul>\n<li>a</li>\n<li><p>b</p></li>\n</ul><p>c</p>", "- a\n- b\n\nc"),
        ("<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>", "1. a\n  - b\n2. c"),
        ("<ul><li></li></ul><p>a</p>", "a"),
        ("use <code>a &lt; b</code> here", "use `a < b` here"),
        (
            "<p>a</p><pre class='x'><code>if x &lt; 1:\n    y()\n\n\n&amp;amp;\n</code></pre>b",
            "a\n\n```\nif x < 1:\n    y()\n\n\n&amp;\n```\n\nb",
        ),
        ("<pre>```\ncode\n```</pre>", "````\n```\ncode\n```\n````"),
        ("<pre>open &amp; never closed", "```\nopen & never closed\n```"),
        ("<li>a<pre>b</pre></li>", "- a\n\n```\nb\n```"),
        ("<h2>Head</h2><p>text</p><hr>end", "Head\n\ntext\n\nend"),
        (
            "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>",
            "a | b\n1 | 2",
        ),
        ("<!-- language: py --><p>a<!-- b --></p>", "a"),
        ("a <!-- b", "a <!-- b"),
        ("1 < 2 &amp;&amp; a<b", "1 < 2 && a<b"),
        ('<a href="x" title="y">link</a> <img src="z" alt="w">', "link"),
        ("x<sub>1</sub>&nbsp;&#233;&#xD800;", "x1\xa0é\ufffd"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        (" \n<p> </p>", ""),
    ],
)
def test_html_becomes_text_and_code_stays_as_it_is(source, text):
    assert html_to_text(source) == text


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a ",
        "<!--",
        "<a b='",
        "<pre>",
        "<ul><li>x",
        "</ul>",
        "x<td>",
        "<p>",
        "&",
        "&#",
        "<code>",
    ],
)
def test_hostile_html_takes_time_in_proportion(unit):
    """A quadratic reader would need hours for these."""
    assert len(html_to_text(unit * (400_000 // len(unit)))) < 1_200_000


def test_the_config_survives_json_and_refuses_what_cannot_be():
    config = BuildConfig(
        name="x",
        sources=(StackExchangeSource(path="x", min_score=-2, max_answers=5),),
        tokenizer=TokenizerFile(path="x"),
    )
    assert from_json(to_json(config), BuildConfig) == config
    with pytest.raises(ValueError, match=r"sources\.stack_exchange\.max_answers must be zero"):
        StackExchangeSource(max_answers=-1)


def test_real_dumps_lose_nothing_but_what_is_no_post():
    if not CORPUS.is_dir():
        pytest.skip("needs stackexchange in ../shared/corpora")
    documents, dropped = collect(CORPUS / "Yoav-Shafir+Elasticsearch-Coffee-Search-Engine-JS")
    assert list(dropped.counts) == ["neither question nor answer"]
    text = documents["Posts.xml:1"]
    assert text.startswith("Q: How should I store whole bean coffee?\n\nI just got a pound of")
    assert text.count("\n\nA: ") == 3
