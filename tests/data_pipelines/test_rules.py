"""Rules drop what their papers say, name the rule and the value, and leave all else as it was."""

import dataclasses
import json
import random
import types

import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.runner import build
from data_pipelines.stages.measure import Measures
from data_pipelines.stages.rules import Broken, RuleFilter, remove_lines
from data_pipelines.stages.vocabulary import Vocabulary
from llama_jax.config import (
    BuildConfig,
    C4Rules,
    FilesSource,
    FineWebRules,
    GopherQuality,
    GopherRepetition,
    TokenizerTraining,
)
from llama_jax.recipe import from_json, to_json
from tests.data_pipelines.small_build import Quiet

WORDS = ["ab", "abc", "d", "efg", "h"]
PROSE = """The people of the village have walked down to the river before sunrise, all {0} of them.
Nobody could say whether rain would fall again, or be as late as it was in year {0}.
Old stories that travellers tell with pleasure rarely mention bridge number {0}.
When snow melts, water carries sand, leaves and broken branches past mill {0} to the sea.
Her brother, who kept bees, sold honey at market {0} for less than anybody had expected.
A narrow road leads through fields of barley, past barn {0}, and ends behind the church.
"""


def prose(salt=0):
    return PROSE.format(salt)


def judge(text, *rules):
    """The kept text, or the reason and the example."""
    dropped = Dropped()
    kept = list(RuleFilter(rules).keep([Document("doc", text)], dropped))
    if kept:
        assert not dropped.counts
        return kept[0].text
    ((reason, examples),) = dropped.examples.items()
    return reason, examples[0]


def measure(texts, vocabulary, **options):
    """All measures of each text, by name."""
    measures, places = Measures(texts, vocabulary, **options), range(len(texts))
    groups = measures.lines(places), measures.words(places), measures.ngrams(places)
    return [
        types.SimpleNamespace(**{k: v for group in groups for k, v in group[at]._asdict().items()})
        for at in places
    ]


def measured(text, **options):
    return measure([text], Vocabulary(), **options)[0]


def naive_duplicates(words, n):
    seen, total, at = set(), 0, 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            total, at = total + sum(map(len, gram)), at + n
        else:
            seen.add(gram)
            at += 1
    return total


def naive_top(words, n):
    counts = {}
    for at in range(len(words) - n + 1):
        gram = tuple(words[at : at + n])
        counts[gram] = counts.get(gram, 0) + 1
    best = max(counts, key=counts.__getitem__, default=())
    return len(" ".join(best)) * counts.get(best, 0)


def test_ngrams_are_counted_as_by_hand_whatever_the_company():
    """Against the definition, on random texts of few different words, in one batch."""
    rng = random.Random(0)
    texts = [
        " ".join(rng.choices(WORDS[: rng.randint(1, 5)], k=rng.randint(1, 90))) for _ in range(150)
    ]
    for text, found in zip(texts, measure(texts, Vocabulary()), strict=True):
        words = text.split()
        assert found == measured(text)
        for n, value in zip((2, 3, 4), found.top_ngram_characters, strict=True):
            assert value == naive_top(words, n) / len(text)
        for n, value in zip(range(5, 11), found.duplicate_ngram_characters, strict=True):
            assert value == naive_duplicates(words, n) / len(text)


def test_measures_of_a_small_text():
    text = "- One, two.\n\n• the END!\nand so...\n\n- One, two.\n"
    found = measured(text, stop_words=("the", "and", "of"), short_line_length=9)
    assert found.num_words == 9
    assert found.mean_word_length == 24 / 9
    assert found.bullet_lines == 3 / 6
    assert found.ellipsis_lines == 1 / 6
    assert found.ellipses_per_word == 1 / 17
    assert found.num_stop_words == 2
    assert found.num_sentences == 4
    assert found.duplicate_paragraphs == 1 / 3
    assert found.duplicate_paragraph_characters == 11 / len(text)
    assert found.duplicate_lines == 1 / 5
    assert found.punctuated_lines == 1.0
    assert found.short_lines == 1 / 4
    assert found.newlines_per_word == 6 / 17


def test_sentences_begin_at_a_word_after_an_end_mark():
    assert measured('One. "Two." (Three) four?! Five').num_sentences == 4
    assert measured("One.\nTwo\n\nthree").num_sentences == 3


def test_a_vocabulary_that_forgets_changes_nothing(monkeypatch):
    texts = [prose(salt) for salt in range(20)]
    expected = measure(texts, Vocabulary())
    monkeypatch.setattr("data_pipelines.stages.vocabulary._MAX_CHUNKS", 10)
    vocabulary = Vocabulary()
    assert [measure([text], vocabulary)[0] for text in texts] == expected


def test_prose_passes_every_rule_unchanged():
    text = prose()
    assert judge(text, C4Rules(), GopherQuality(), GopherRepetition(), FineWebRules()) == (
        text.strip()
    )
    assert judge(text, GopherQuality(), GopherRepetition(), FineWebRules()) == text


@pytest.mark.parametrize(
    ("text", "rule", "reason", "value"),
    [
        ("Too short.", GopherQuality(), "gopher_quality: words", "2, at least 50"),
        ("a of " * 30, GopherQuality(), "gopher_quality: mean word length", "1.5, at least 3"),
        ("# " + prose(), GopherQuality(max_hashes_per_word=0), "hashes per word", "at most 0"),
        ("1984 1985 " * 30, GopherQuality(), "alphabetic words", "0, at least 0.8"),
        ("über allen gipfeln ruhe " * 15, GopherQuality(), "stop words", "0, at least 2"),
        ("- a\n- b\n", GopherQuality(min_words=0), "mean word length", "1, at least 3"),
        (prose() * 2, GopherRepetition(), "duplicate lines", "0.4615, at most 0.3"),
        ("one two three four five six. " * 9, GopherRepetition(), "top 2-gram", "at most 0.2"),
        (prose().replace(".", ""), FineWebRules(), "fineweb: punctuated lines", "0, at least"),
        ("Short.\n" * 3, FineWebRules(), "fineweb: short lines", "1, at most 0.67"),
        (prose() + prose()[:300], FineWebRules(), "duplicate line characters", "at most 0.01"),
        ("One two. " * 2, C4Rules(), "c4: sentences", "2, at least 5"),
        ("function() { return; }.", C4Rules(), "c4: curly bracket", "1, none"),
        (prose() + "Lorem ipsum dolor sit amet.", C4Rules(), "c4: lorem ipsum", "1, none"),
        ("no end mark", C4Rules(), "c4: lines left", "0, at least 1"),
    ],
)
def test_the_broken_rule_is_named_with_the_value(text, rule, reason, value):
    found, example = judge(text, rule)
    assert reason in found
    assert example.startswith("doc (")
    assert value in example


def test_c4_removes_lines_that_are_no_sentences():
    text = "\n".join(
        [
            "A menu without an end",
            "  This line stays as it is.[12][citation needed]  ",
            "Too short.",
            "And then it went on...",
            "Please enable JavaScript to go on.",
            "We value you: read our Privacy Policy now.",
            "One " + "x" * 1001 + " word.",
            'He said "so be it"',
        ]
    )
    assert remove_lines(text, C4Rules()) == 'This line stays as it is.\nHe said "so be it"'
    free = C4Rules(needs_terminal_punctuation=False, remove_policies=False, min_words_per_line=0)
    assert len(remove_lines(text, free).splitlines()) == 6


def test_c4_leaves_a_documents_provenance_and_shows_what_it_drops():
    page = Document("doc", f"Menu\n{prose()}", "https://x.org", "en", (("date", "2024"),))
    dropped = Dropped()
    kept = list(RuleFilter([C4Rules()]).keep([page, page._replace(text="Menu")], dropped))
    assert kept == [page._replace(text=prose().strip())]
    assert dropped.excerpts == {"c4: lines left": ["Menu"]}


def test_a_bracket_in_a_removed_line_drops_nothing():
    assert remove_lines("{\nThis line stays here.", C4Rules()) == "This line stays here."
    assert isinstance(remove_lines("This line { goes.", C4Rules()), Broken)


def test_line_removal_precedes_the_other_rules_wherever_it_stands():
    text = prose() + "menu\n" * 40
    assert "fineweb" in judge(text, FineWebRules())[0]
    assert judge(text, FineWebRules(), C4Rules()) == prose().strip()


def test_the_first_broken_rule_in_the_order_given_is_named():
    first, second = GopherQuality(), FineWebRules()
    assert judge("short", first, second)[0].startswith("gopher_quality")
    assert judge("short", second, first)[0].startswith("fineweb")


def test_a_text_dropped_for_its_lines_is_not_split_into_words(monkeypatch):
    monkeypatch.setattr(Vocabulary, "words", None)
    assert judge(prose() * 2, GopherRepetition(), GopherQuality())[0].endswith("duplicate lines")


def test_a_text_dropped_for_its_words_is_not_searched_for_ngrams(monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.measure.repeated_characters", None)
    assert judge("Too short.", GopherQuality(), GopherRepetition())[0].endswith("words")


def test_a_text_of_unbounded_length_is_counted_and_not_measured(monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.rules._MAX_CHARACTERS", 1000)
    assert judge("word " * 300, GopherQuality())[0] == "rules: longer than 1,000 characters"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: GopherQuality(max_bullet_lines=2), r"gopher_quality\.max_bullet_lines must be in"),
        (lambda: GopherQuality(min_words=9, max_words=8), "min_words=9 must not be above"),
        (lambda: GopherQuality(min_stop_words=9), "must not be above the 8 stop words"),
        (
            lambda: GopherRepetition(max_top_ngram_characters=(0.2, 18.0, 0.16)),
            r"max_top_ngram_characters must be in \[0, 1\], got 18",
        ),
        (lambda: C4Rules(max_word_length=0), r"rules\.c4\.max_word_length must be positive"),
        (lambda: FineWebRules(short_line_length=-1), "short_line_length must be zero or more"),
    ],
)
def test_impossible_thresholds_are_refused_by_name(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_a_build_counts_what_each_rule_dropped(tmp_path):
    texts = [prose(salt) for salt in range(30)] + ["Too short."] * 3 + ["x { y z."]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = BuildConfig(
        name="test",
        sources=(FilesSource(path=str(path), filters=(C4Rules(), GopherQuality())),),
        tokenizer=TokenizerTraining(vocab_size=330, sample_bytes=20_000),
    )
    assert from_json(to_json(config), BuildConfig) == config

    summary, _ = build(config, tmp_path / "out", Quiet())
    files = summary["sources"]["files"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())["sources"]["files"]
    assert [passage["documents"] for passage in report["passages"]] == [34, 30, 30]
    assert report["dropped"]["c4: curly bracket"]["examples"][0]["id"] == "a.jsonl:34 (1, none)"
    assert files["dropped"] == {"c4: curly bracket": 1, "c4: lines left": 3}
    assert files["dropped_examples"]["c4: curly bracket"] == ["a.jsonl:34 (1, none)"]
    with pytest.raises(ValueError, match=r"sources\.files\.filters has C4Rules twice"):
        dataclasses.replace(config.sources[0], filters=(C4Rules(), C4Rules(min_sentences=1)))
