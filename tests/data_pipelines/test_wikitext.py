"""Wikitext becomes what a reader sees, in time linear in its length, whatever it holds."""

import time

import pytest

from data_pipelines.sources.wikitext import to_text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        pytest.param("a {{x|{{y|[[z]]}}|b={{w}}}} c", "a c", id="templates of any depth go"),
        pytest.param("a {{{1|b}}} c", "a c", id="parameters go"),
        pytest.param("{{Box\n|a=\n{|\n|b\n|}\n|}}\nText", "Text", id="an empty last parameter"),
        pytest.param("{{convert|5|to|9|km|mi}} away", "5 to 9 km away", id="measures stay"),
        pytest.param("{{lang|fr|''mot''}} is", "mot is", id="foreign words stay"),
        pytest.param("{{lang-ru|слово}} is", "слово is", id="words of a named language stay"),
        pytest.param("{{nowrap|1=a = 2}}, {{quote|text=so}}", "a = 2, so", id="arguments shown"),
        pytest.param("1939{{ndash}}45", "1939–45", id="dashes stay"),
        pytest.param("a\n{|\n| b {|\n| c\n|}\n| d\n|}\ne", "a\ne", id="nested tables go"),
        pytest.param("a\n<table><tr><td>b<table></table>c</table>d", "a\nd", id="HTML tables go"),
        pytest.param('a<ref name="b">{{c}}</ref>b<ref name=x />c', "abc", id="references go"),
        pytest.param("a<ref name=x>b<ref>c</ref>d", "abd", id="a reference without end"),
        pytest.param("a<!-- [[b]] -->c<!-- d", "ac", id="comments go, with or without end"),
        pytest.param("x <math>a_{1}\n<b</math> y", "x $a_{1} <b$ y", id="formulas are TeX"),
        pytest.param("<nowiki>[[a]] ''b'' {{c}}</nowiki>", "[[a]] ''b'' {{c}}", id="nowiki"),
        pytest.param("<pre>\n# a\n  * b\n\n= c\n</pre>", "# a\n  * b\n\n= c", id="pre is kept"),
        pytest.param("a<gallery>\nFile:x.jpg|y\n</gallery>b", "ab", id="galleries go"),
        pytest.param("<div class=x>a<br/>b</div>H<sub>2</sub>O", "a\nb\nH2O", id="tags go alone"),
        pytest.param("#include <stdio.h>, 1 < 2", "- include <stdio.h>, 1 < 2", id="no tags"),
        pytest.param("<poem>\na\nb\n</poem>", "a\nb", id="verses keep their lines"),
        pytest.param("[[a]]s, [[b|c]], [[:Category:d]]", "as, c, Category:d", id="links"),
        pytest.param("[[Star Wars: Episode IV|film]] [[A: B]]", "film A: B", id="colons"),
        pytest.param("a [[File:b.jpg|thumb|c [[d]] {{e}}]] f", "a f", id="pictures go"),
        pytest.param("a [[Immagine:b.jpg]] [[Категория:c]] d", "a d", id="in 20 languages"),
        pytest.param("a\n[[de:b]]\n[[zh-min-nan:c]]", "a", id="interlanguage links go"),
        pytest.param("[http://a.b/c d e] [https://f] [//g h]", "d e h", id="external links"),
        pytest.param("'''''a''''' '''b''' ''c'' d's", "a b c d's", id="bold and italic"),
        pytest.param("l'''amour'' de", "l'amour de", id="an elision before italics"),
        pytest.param("'''a''' (''b'')", "a (b)", id="the end of bold is no elision"),
        pytest.param("* a\n** b\n# c\n: d\n; e", "- a\n- b\n- c\nd\ne", id="lists"),
        pytest.param("* {{cite}}.\n* {{cite}}. b\n*", "- b", id="list items left empty go"),
        pytest.param("a\nb\n\nc\n d", "a b\nc\nd", id="lines of a paragraph are joined"),
        pytest.param("a&nbsp;&amp; b&#33; &lt;ref&gt;", "a & b! <ref>", id="entities"),
        pytest.param("__NOTOC__a__БЕЗ_СЪДЪРЖАНИЕ__ __init__", "a __init__", id="magic"),
        pytest.param("a\n----\nb", "a\nb", id="rulers go"),
        pytest.param("A ({{IPA|x}}, {{y}}; b) c ({{z}}) d", "A (b) c d", id="what is left in ()"),
        pytest.param("a {{x}}; b {{y}}: c ; d", "a; b: c ; d", id="spaces before other marks"),
        pytest.param("a (b, {{c}}) {{d}}, e {{f}}.", "a (b), e.", id="spaces before stops"),
    ],
)
def test_markup_becomes_what_it_shows(wikitext, text):
    assert to_text(wikitext) == text


def test_headings_stay_where_prose_follows_and_sections_of_references_go():
    wikitext = """lead
== Empty ==
== Life ==
=== Youth ===
prose
=== Nothing ===
{{x}}
== References ==
* a book
=== Also these ===
* another
== ''Work'' ==
more
== Външни препратки ==
* link"""
    assert to_text(wikitext) == "lead\nLife\nYouth\nprose\nWork\nmore"


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a {{b c [[d]] e", "a b c d e"),
        ("a }} b ]] c", "a b c"),
        ("a [[b {{c}} d", "a b d"),
        ("{|\n| a [[b {{c\n|}\nd", "d"),
        ("{{a [[b }} c ]] d", "c d"),
        ("[[a {{b ]] c", "a b c"),
        ("[[File:a {{b ]] c }} d ]] e", "e"),
        ("a<ref name=x />b</ref>c", "abc"),
        ("{{infobox\n| a = b\n\ntext", "infobox\ntext"),
    ],
)
def test_a_bracket_without_partner_costs_itself_alone(wikitext, text):
    assert to_text(wikitext) == text


def test_a_text_cannot_forge_what_stands_between_the_steps():
    assert to_text("a \ufdd0 b \ufdd2\ufdd2c]] \ufdef") == "a b c"


def test_the_dump_names_more_hidden_namespaces():
    assert to_text("a [[Berkas:b.jpg|c]]") == "a c"
    assert to_text("a [[Berkas:b.jpg|c]]", hidden=frozenset(["berkas"])) == "a"


HOSTILE = """{{ [[ {{lang|a| {{nowrap| [[a: [[a| {|\\n <ref> <ref\\tname=a> <math> <!-- <table>
<poem> <pre> <br> }} ]] {{{ ' '' ''' a'''b = \\n= * : __ __A & &# ( (, , ;, \\t . [http:// [http://a\\tb
{{lang|a|}} [[a|b]] -\\n \\n:{| \\u00a0 ( ) a, <ref></ref>"""


@pytest.mark.parametrize("piece", HOSTILE.split())
def test_time_is_linear_in_the_length(piece):
    """Four times the input takes four times as long; what is quadratic takes sixteen."""
    piece = piece.encode().decode("unicode_escape").replace("\t", " ")

    def seconds(size):
        texts = (piece * (size // len(piece)), (piece + " ") * (size // len(piece)))
        start = time.process_time()
        for text in texts:
            to_text(text + "]]" * 99 + "x ,)")
        return time.process_time() - start

    assert seconds(400_000) < max(9 * seconds(100_000), 0.3)


def test_a_million_open_brackets_are_no_deeper_than_one():
    for wikitext in ("{{" * 10**6, "[[" * 10**6, "{{nowrap|" * 10**5 + "a" + "}}" * 10**5):
        assert len(to_text(wikitext)) < 10**6
