"""Addresses in the source of articles are found, and told to be the same whatever their form."""

import numpy as np
import pytest

from data_pipelines.document import Dropped
from data_pipelines.stages import references
from data_pipelines.stages.references import addresses, canonical, read_references
from llama_jax.config import WikipediaSource


@pytest.mark.parametrize(
    ("wikitext", "found"),
    [
        (
            "<ref>{{cite web|url=https://a.org/b?c=d&amp;e=f |title=x}}</ref>",
            ["https://a.org/b?c=d&e=f"],
        ),
        ("[http://a.org/x_(y) words], [HTTPS://B.org]", ["http://a.org/x_(y)", "HTTPS://B.org"]),
        ("(see http://a.org/b). ''http://c.org/d''", ["http://a.org/b", "http://c.org/d"]),
        ("{{official|http://a.org}} [[http]] ftp://b.org", ["http://a.org"]),
        (
            "[https://web.archive.org/web/2019id_/http://a.org/b c]",
            ["https://web.archive.org/web/2019id_/http://a.org/b", "http://a.org/b"],
        ),
    ],
)
def test_addresses_are_those_of_references_and_links(wikitext, found):
    assert list(addresses(wikitext)) == found


@pytest.mark.parametrize(
    "same",
    [
        ["http://a.org", "https://www.A.org/", "http://a.org:80/#top", "HTTPS://a.org:443"],
        ["http://a.org/b", "http://a.org/b/", "https://a.org/%62"],
        ["http://a.org/é b", "http://a.org/%C3%A9%20b", "http://a.org/%c3%a9%20b"],
    ],
)
def test_forms_of_one_address_are_the_same(same):
    assert len({canonical(address) for address in same}) == 1


def test_other_addresses_are_others_and_what_is_none_is_empty():
    different = ["a.org", "a.org/b", "a.org/B", "a.org/b?c", "a.org/b?C", "a.org:8080", "b.a.org"]
    assert len({canonical(f"http://{each}") for each in different}) == len(different)
    for none in ("", "words", "http://", "http://[a/b", "http://a.org:x/"):
        assert canonical(none) == ""


def test_addresses_of_all_dumps_are_known_whatever_is_merged_when(tmp_path, monkeypatch):
    for name in ("a", "b"):
        page = (
            "<page><title>A</title><ns>{}</ns><id>1</id><revision><text>{}</text></revision></page>"
        )
        links = " ".join(f"[http://{name}.org/{number} x]" for number in range(7))
        (tmp_path / f"{name}.xml").write_text(
            f"<mediawiki>{page.format(0, links + ' http://[bad/x')}"
            f"{page.format(1, 'http://talk.org/')}</mediawiki>"
        )
    found = read_references(WikipediaSource(path=str(tmp_path)), dropped := Dropped())
    assert not dropped.bad
    assert len(found) == 14
    assert "https://www.b.org/6" in found
    assert not any(each in found for each in ("http://b.org/7", "http://talk.org/", "", "nothing"))
    monkeypatch.setattr(references, "_AT_ONCE", 3)
    again = read_references(WikipediaSource(path=str(tmp_path)), Dropped())
    np.testing.assert_array_equal(again._numbers, found._numbers)
