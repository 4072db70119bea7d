"""A page gives what it is about, in the order of its lines, whatever its tags do."""

import time
import tracemalloc

import pytest

from benchmarks.html_text import gold_pages, score
from data_pipelines.sources import html_blocks
from data_pipelines.sources.html_blocks import TooManyTagsError
from data_pipelines.sources.html_text import html_to_text

PROSE = [
    "The river had been rising since Tuesday, and by the evening it stood at the bridge.",
    "Nobody in the village could remember a flood like it, though some had read of one.",
    "When the water fell again, it left behind a layer of mud, and a boat without an owner.",
]
ARTICLE = "".join(f"<p>{text}</p>" for text in PROSE)
TEXT = "\n".join(PROSE)


def page(body, head=""):
    return f"<!DOCTYPE html><html><head><title>T</title>{head}</head><body>{body}</body></html>"


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(
            '<ul><li><a href="/">Home</a><li><a href="/x">News of the day</a></ul>{}', id="links"
        ),
        pytest.param(
            "<nav>Go here and there, where many more pages of ours are.</nav>{}", id="nav"
        ),
        pytest.param(
            "{}<footer><p>We are a company with an address and a long name.</footer>", id="footer"
        ),
        pytest.param(
            '<div class="site-sidebar"><p>Our other pages are about other rivers.</div>{}',
            id="class",
        ),
        pytest.param(
            "{}<div id=comments><p>I have seen this flood myself, it was terrible!</div>", id="id"
        ),
        pytest.param(
            '{}<div style="display:none"><p>Nobody is to see this line of the page.</div>',
            id="style",
        ),
        pytest.param(
            "{}<p aria-hidden='true'>x</p><div hidden><p>Neither is this one to be seen</div>",
            id="hidden",
        ),
        pytest.param("<h1>The flood</h1><p>Monday, 3 May</p>{}", id="title"),
        pytest.param(
            "{}<h3>Read on</h3><ul><li><a href=/>Floods of the past</a></ul>", id="heading of links"
        ),
        pytest.param(
            "{}<p>Sign up for our newsletter about rivers.</p><p>Advertisement</p>", id="noise"
        ),
        pytest.param(
            "<script>if (a<b) x('<p>not text of this page at all, but a string</p>')</script>{}",
            id="script",
        ),
        pytest.param(
            "<STYLE>p > a {{}}</STYLE>{}",
            id="style sheet",
        ),
        pytest.param(
            "<!-- <p>A long remark of the one who has written the page > --> {}", id="comment"
        ),
        pytest.param(
            "<a href=/x><div><h4>Fire</h4><p>A house burnt down in another village.</div></a>{}",
            id="teaser",
        ),
        pytest.param(
            '<div data-x="<p>A text in an attribute, as some pages have it</p>">{}</div>',
            id="attribute",
        ),
    ],
)
def test_what_stands_around_the_text_is_left_out(around):
    assert html_to_text(page(around.format(ARTICLE))) == TEXT


def test_the_whole_page_comes_where_it_is_asked_for():
    body = f"<nav>Menu</nav><h1>The flood</h1>{ARTICLE}<div class=sidebar>Rivers</div>"
    text = html_to_text(page(body), main_content=False)
    assert text == f"Menu\nThe flood\n{TEXT}\nRivers"


@pytest.mark.parametrize(
    "wrapper",
    ['<div class="sidebar">{}</div>', '<div id="comments">{}</div>', "<div hidden>{}</div>"],
)
def test_names_never_cost_most_of_a_page(wrapper):
    assert html_to_text(page(wrapper.format(ARTICLE))) == TEXT


def test_what_belongs_to_a_text_stays_in_it():
    body = f"""<article>{ARTICLE}<h2>What was lost</h2>
    <ul><li>Two <b>bri</b>dges <li>the <a href=/mill>mill</a></ul>
    <h2>Heights</h2><h3>In metres</h3><table><tr><th>Day<th>Height<tr><td>1<td>4.5</table>
    <pre>for day in week:
        measure(day)</pre>
    <p>{PROSE[0]}<br>{PROSE[1]}</p></article>"""
    lines = html_to_text(page(body)).splitlines()
    assert lines[3:] == [
        "What was lost",
        "- Two bridges",
        "- the mill",
        "Heights",
        "In metres",
        "Day\tHeight",
        "1\t4.5",
        "for day in week:",
        "        measure(day)",
        PROSE[0],
        PROSE[1],
    ]


def test_the_article_is_taken_and_not_the_others_on_its_page():
    others = "".join(f"<div><p>{text} {text}</p></div>" for text in PROSE[:1])
    body = f"<main><div class=article-body>{ARTICLE}</div></main><section>{others}</section>"
    assert html_to_text(page(body)) == f"{TEXT}\n{PROSE[0]} {PROSE[0]}"
    body = (
        f'<main><div itemprop="articleBody">{ARTICLE}</div></main><section><p>{PROSE[0]}</section>'
    )
    assert html_to_text(page(body)) == TEXT


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "<p>a &amp; b &lt;c&gt; caf&eacute;&nbsp;d &#8364;&#x20ac; &unknown; &",
            "a & b <c> café d €€ &unknown; &",
        ),
        (f"<p>x&#{'9' * 5000};&#xD800;&#0;y", "x\ufffd\ufffd\ufffdy"),
        ("<P>One\n  line<P>two<BR>three<Br/>four", "One line\ntwo\nthree\nfour"),
        ("<p>a<p>b</p></p></div></table>c", "a\nb\nc"),
        ("<p>1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<p>a\0b\1c\2d", "abcd"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("<p>cut in the middle of a <a hre", "cut in the middle of a"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_broken_markup_reads_as_a_person_would(body, text):
    assert html_to_text(body, main_content=False) == text


def test_a_link_that_is_never_closed_ends_with_what_it_is_in():
    assert html_to_text(page(f'<div><a href="/">top</div>{ARTICLE}')) == TEXT


def test_scripts_without_spaces_count_as_much_as_others():
    prose = "川の水は火曜日から上がり続け、夕方には橋に届いていた。村の誰も覚えがない。"
    assert len(prose) < 50
    body = f"<div class=x>{'<p>' + prose}</div><div>{'<span>メニュー</span>' * 3}</div>"
    assert html_to_text(page(body)) == prose


N = 60_000


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("<div>" * N + "x", id="div"),
        pytest.param("<div>" * N + "x" + "</div>" * N, id="closed"),
        pytest.param("<ul><li>" * N + "x", id="li"),
        pytest.param("<table><tr><td>" * N, id="table"),
        pytest.param("<p><b></p>" * N, id="misnested"),
        pytest.param("<div></p></b>" * N, id="strays"),
        pytest.param("<nav>" * N, id="skipped"),
        pytest.param("<div hidden>" * N, id="hidden"),
        pytest.param("<" * N * 10, id="<"),
        pytest.param("<a <b " * N * 4, id="never a tag"),
        pytest.param("<p <b>" * N * 4, id="a tag once another is gone"),
        pytest.param("<a <b>" * N * 4, id="a link once a tag is gone"),
        pytest.param("<script>" * N, id="script"),
        pytest.param("<SCRIPT>a</SCRIPT>" * N, id="SCRIPT"),
        pytest.param("<!--" * N, id="comment"),
        pytest.param('<p a=">' * N, id="quotes"),
        pytest.param("<a href=x>" * N, id="a"),
        pytest.param('<p class="' + "share-" * N * 4 + '">x', id="class"),
        pytest.param("<p style='" + "display " * N * 4 + "'>x", id="style"),
        pytest.param("<br>" * N * 4, id="br"),
        pytest.param("&#" + "9" * N * 10 + ";", id="number"),
    ],
)
def test_no_nesting_takes_more_than_linear_time(hostile):
    start = time.process_time()
    html_to_text(hostile)
    assert time.process_time() - start < 6


def test_a_page_of_too_many_tags_is_refused_before_it_costs_memory(monkeypatch):
    monkeypatch.setattr(html_blocks, "MAX_TAGS", 1_000)
    tracemalloc.start()
    with pytest.raises(TooManyTagsError):
        html_to_text("<p>x" * 500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    with pytest.raises(TooManyTagsError):
        html_to_text("<p>x" * 1_500)


def test_gold_pages_are_read_as_people_read_them():
    if not (pages := gold_pages()):
        pytest.skip("needs commoncrawl/ in ../shared/corpora")
    f1, precision, recall = score([(text, html_to_text(html)) for html, text in pages.values()])
    assert len(pages) == 58
    assert f1 > 0.965
    assert precision > 0.96
    assert recall > 0.965
