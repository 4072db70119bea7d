"""The report says what a build did, to people, and is not moved by what documents contain."""

import copy
import html.parser
import re

import pytest

from data_pipelines.report import funnel, place_name, write_report
from llama_jax.page import text
from llama_jax.plain_text import amount, byte_size, percent, visible

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&lt;\x00\x1b[31m\x07"
    "\u202egnp.exe\u2066" + "\u200b" * 300 + "\ud800\u2028]]>--><!--</style></svg></details></div>"
)
SOURCE = {
    "files": 3,
    "raw_bytes": 2_000_000,
    "passages": [
        {"name": "read", "documents": 1000, "text_bytes": 4_000_000},
        {"name": "RuleFilter", "documents": 600, "text_bytes": 2_000_000},
        {"name": "exact duplicates", "documents": 590, "text_bytes": 1_000_000},
    ],
    "dropped": {
        "gopher_quality: words": {
            "count": 400,
            "text_bytes": 1_987_654,
            "examples": [{"id": "a.txt:7 (3, at least 50)", "text": "short & sweet"}],
        },
        "the same text as another document": {
            "count": 10,
            "text_bytes": 0,
            "examples": [{"id": "b.txt:1", "text": ""}],
        },
    },
    "num_bad": 2,
    "bad": ["c.gz (damaged)"],
    "notes": {"personal data replaced": {"email": 19, "ip": 1}},
    "splits": {
        "train": {"documents": 580, "tokens": 240_000, "text_bytes": 960_000, "shards": 2},
        "heldout": {"documents": 10, "tokens": 10_000, "text_bytes": 40_000, "shards": 1},
    },
    "lengths": {"train": [0, 0, 80, 300, 200], "heldout": [0, 0, 10]},
    "languages": {"en": 500, "": 90},
    "duplicate_groups": [[2, 30], [3, 4], [40, 1]],
}
REPORT = {
    "name": "mix",
    "config": {"name": "mix", "sources": []},
    "tokenizer": {"file": "t.model", "kind": "sentencepiece", "sha256": "ab", "vocab_size": 32000},
    "worker_deaths": [["collect/web/00003", "collect/web/00007"]],
    "mixture": {"wanted": {"web": 0.75, "books": 0.25}, "tokens": {"web": 0.5, "books": 0.5}},
    "sources": {"web": SOURCE, "books": SOURCE},
}
VOID = {"meta", "rect", "br", "img"}


class Page(html.parser.HTMLParser):
    """Collects elements and text; fails on markup that is not closed in its order."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(markup)
        self.close()
        assert not self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def named(self, tag):
        return [attributes for element, attributes in self.elements if element == tag]


def page_of(report, tmp_path):
    path = tmp_path / "report.html"
    write_report(report, path)
    return Page(path.read_text(encoding="utf-8"))


def with_source(**changes):
    return {**REPORT, "sources": {"web": {**SOURCE, **changes}}}


def everywhere(value, added):
    """The same structure with every string that is not empty extended."""
    if isinstance(value, dict):
        return {key: everywhere(each, added) for key, each in value.items()}
    if isinstance(value, list):
        return [everywhere(each, added) for each in value]
    return value + added if isinstance(value, str) and value else value


def test_a_reason_shows_how_much_text_it_took_and_about_how_many_tokens(tmp_path):
    shown = page_of(REPORT, tmp_path).text
    assert "gopher_quality: words 400 98% 1.99 MB ≈ 500,000 tokens" in shown
    assert "the same text as another document 10 2.4% –" in shown


def test_documents_cannot_act_in_the_page(tmp_path):
    clean = page_of(REPORT, tmp_path)
    hostile = everywhere(copy.deepcopy(REPORT), HOSTILE)
    for source in hostile["sources"].values():
        for table in ("dropped", "languages", "notes"):
            source[table] = {key and key + HOSTILE: n for key, n in source[table].items()}
    hostile["sources"] = {name + HOSTILE: each for name, each in hostile["sources"].items()}
    for table in ("wanted", "tokens"):
        shares = hostile["mixture"][table]
        hostile["mixture"][table] = {name + HOSTILE: share for name, share in shares.items()}
    page = page_of(hostile, tmp_path)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    assert [set(attributes) for _, attributes in page.elements] == [
        set(attributes) for _, attributes in clean.elements
    ]
    assert "‹U+202E›gnp.exe‹U+2066›‹U+200B ×300›‹U+D800›‹U+2028›" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert not set(page.text) & set("\x00\x1b\x07\u202e\u2066\u200b\u2028")


def test_the_page_needs_neither_network_nor_script(tmp_path):
    page = page_of(REPORT, tmp_path)
    assert not page.named("script") + page.named("img") + page.named("link") + page.named("iframe")
    targets = [attributes["href"] for attributes in page.named("a")]
    assert targets
    assert all(target.startswith("#") for target in targets)
    assert {target[1:] for target in targets} <= {each.get("id") for _, each in page.elements}
    (policy,) = (meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    markup = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\((?!#)|@import|https?:", markup)


def test_titles_say_what_pictures_show(tmp_path):
    shown = page_of(REPORT, tmp_path).text
    for claim in (
        "59% of 1,000 documents are kept; most go at “quality rules”, 400",
        "98% for “gopher_quality: words”",
        "training reads a token of web 1.5 times as often as the average token",
        "Half of the documents have fewer than 16 tokens",
        "85% of the documents kept are in “en”",
        "35 groups of documents alike, the largest of 40; 77 dropped",
        "Damaged: 2 files or records",
        "c.gz (damaged)",
        "Workers died: 1",
        "collect/web/00003 or collect/web/00007",
        "personal data replaced, 20",
        "short & sweet",
        "tokenizer, sentencepiece 32,000 ids",
        "not identified",
        "32 to 63",
    ):
        assert claim in shown


def test_one_damaged_file_is_one(tmp_path):
    shown = page_of(with_source(num_bad=1), tmp_path).text
    assert "Damaged: 1 file or record" in shown and "files or records" not in shown


def test_a_funnel_has_every_place_with_documents_bytes_and_tokens():
    rows = dict(funnel(SOURCE))
    assert rows["read"] == ("1,000", "", "100%", "4.00 MB", "≈ 1.0 million")
    assert rows["quality rules"] == ("600", "400", "60%", "2.00 MB", "≈ 500,000")
    assert rows["→ for training"] == ("580", "", "58%", "960 kB", "240,000")
    assert rows["→ held out"] == ("10", "", "1.0%", "40.0 kB", "10,000")


def test_bars_are_as_long_as_their_numbers(tmp_path):
    rects = page_of(with_source(), tmp_path).named("rect")
    painted = {(rect["class"], rect["width"], rect.get("x")) for rect in rects if "class" in rect}
    assert {("kept", "60.00%", "0.00%"), ("gone", "40.00%", "60.00%")} <= painted
    assert {("kept", "25.00%", "0.00%"), ("gone", "25.00%", "25.00%")} <= painted
    columns = [rect for rect in rects if "y" in rect and "%" not in rect["height"]]
    assert [float(rect["height"]) for rect in columns] == [32, 4, 120, 0, 80, 0]
    # Held-out documents stand on those for training, those on the ground at 134.
    assert [float(rect["y"]) for rect in columns] == [102, 98, 14, 14, 54, 54]


def test_long_tails_are_folded_and_nothing_is_lost(tmp_path):
    many = {f"l{number:02d}": 100 - number for number in range(40)}
    page = page_of(with_source(languages=many), tmp_path)
    assert "28 more" in page.text
    assert all(f" {code} " in page.text for code in many)
    assert "more" not in page_of(with_source(languages=dict([*many.items()][:13])), tmp_path).text


EMPTY = {
    "files": 0,
    "raw_bytes": 0,
    "passages": [],
    "dropped": {},
    "num_bad": 0,
    "bad": [],
    "notes": {},
    "splits": {
        split: {"documents": 0, "tokens": 0, "text_bytes": 0, "shards": 0}
        for split in ("train", "heldout")
    },
    "lengths": {},
    "languages": {},
    "duplicate_groups": [],
}


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(with_source(), id="one source"),
        pytest.param({**REPORT, "sources": {"web": EMPTY}}, id="a source without anything"),
        pytest.param(with_source(**EMPTY | {"passages": SOURCE["passages"]}), id="nothing kept"),
        pytest.param(
            {**REPORT, "sources": {}, "mixture": {"wanted": None, "tokens": {}}}, id="no source"
        ),
        pytest.param({**REPORT, "mixture": {"wanted": None, "tokens": {"web": 1}}}, id="no wish"),
        pytest.param(
            {**REPORT, "mixture": {"wanted": {"web": 1.0}, "tokens": {"web": 0.0, "books": 0.0}}},
            id="no tokens to mix",
        ),
        pytest.param(
            with_source(
                splits=EMPTY["splits"],
                passages=[
                    {"name": "read", "documents": 5, "text_bytes": 10},
                    {"name": "PersonalDataStage", "documents": 5, "text_bytes": 40},
                ],
            ),
            id="text that grows",
        ),
    ],
)
def test_poor_datasets_have_whole_pages(report, tmp_path):
    page = page_of(report, tmp_path)
    assert "nan" not in page.text
    for rect in page.named("rect"):
        for side in ("x", "width"):
            assert 0 <= float(rect.get(side, "0").rstrip("%")) <= 360
        if rect.get("width", "").endswith("%"):
            end = float(rect.get("x", "0").rstrip("%")) + float(rect["width"].rstrip("%"))
            assert end <= 100.5


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (byte_size(0), "0 B"),
        (byte_size(999), "999 B"),
        (byte_size(999_999), "1.00 MB"),
        (byte_size(1_864_000_000), "1.86 GB"),
        (amount(999_000), "999,000"),
        (amount(1_254_000), "1.25 million"),
        (amount(1.5e13, 2), "15 trillion"),
        (percent(0, 7), "0%"),
        (percent(1, 10_000), "<0.1%"),
        (percent(99_999, 100_000), ">99.9%"),
        (percent(7, 7), "100%"),
        (percent(1, 0), "–"),
        (place_name("PersonalDataStage"), "personal data"),
        (place_name("near duplicates"), "near duplicates"),
        (visible("می\u200cخواهم 👩\u200d👧 ❤\ufe0f\t\r\n"), "می\u200cخواهم 👩\u200d👧 ❤\ufe0f\t\n"),
        (text("\"'<&"), "&quot;&#x27;&lt;&amp;"),
        (visible("a\rb\x9b1m\u2066"), "a‹U+000D›b‹U+009B›1m‹U+2066›"),
        (visible("\u200d\u200d\u200d"), "‹U+200D ×3›"),
        (visible("\u200c\u200d" * 2), "‹U+200C›‹U+200D›‹U+200C›\u200d"),
    ],
)
def test_numbers_and_foreign_text_are_as_people_read_them(shown, expected):
    assert shown == expected
