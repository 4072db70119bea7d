"""Measures and decisions equal datatrove's on real documents.

Needs `datatrove[processing]` and spaCy, which are no dependencies of this project: install them
into an environment of their own that also sees this project's packages.
"""

import numpy as np
import pytest

pytest.importorskip("datatrove", reason="datatrove is not installed")
pytest.importorskip("spacy", reason="spaCy is not installed")

from datatrove.data import Document as PeerDocument  # type: ignore[import-not-found]
from datatrove.pipeline.filters import (  # type: ignore[import-not-found]
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters import gopher_repetition_filter as peer
from datatrove.utils.text import split_into_words  # type: ignore[import-not-found]

from benchmarks.samples.texts import CORPORA, real_documents
from data_pipelines.document import Document, Dropped
from data_pipelines.stages.measure import measure
from data_pipelines.stages.rules import RuleFilter
from data_pipelines.stages.words import Vocabulary, split_chunk
from llama_jax.config import C4Rules, FineWebRules, GopherQuality, GopherRepetition

if not CORPORA.is_dir():
    pytest.skip(f"{CORPORA} is not there", allow_module_level=True)

DOCUMENTS = 1000
PAIRS = {
    "gopher_quality": (GopherQuality(), GopherQualityFilter),
    "gopher_repetition": (GopherRepetition(), GopherRepetitionFilter),
    "c4": (C4Rules(), C4QualityFilter),
    "fineweb": (FineWebRules(), FineWebQualityFilter),
}
REASONS = {
    "gopher_short_doc": "words",
    "gopher_long_doc": "words",
    "gopher_below_avg_threshold": "mean word length",
    "gopher_above_avg_threshold": "mean word length",
    "gopher_too_many_hashes": "hashes per word",
    "gopher_too_many_ellipsis": "ellipses per word",
    "gopher_too_many_bullets": "bullet lines",
    "gopher_too_many_end_ellipsis": "ellipsis lines",
    "gopher_below_alpha_threshold": "alphabetic words",
    "gopher_enough_stop_words": "stop words",
    "dup_para_frac": "duplicate paragraphs",
    "dup_para_char_frac": "duplicate paragraph characters",
    "dup_line_frac": "duplicate lines",
    "dup_line_char_frac": "duplicate line characters",
    **{f"top_{n}_gram": f"top {n}-gram characters" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate {n}-gram characters" for n in range(5, 11)},
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    "too_few_sentences": "sentences",
    "line_punct_ratio": "punctuated lines",
    "short_line_ratio": "short lines",
    "char_dup_ratio": "duplicate line characters",
    "list_ratio": "newlines per word",
}


@pytest.fixture(scope="module")
def texts():
    return real_documents(CORPORA, DOCUMENTS)


def test_words_are_those_of_spacy(texts):
    """All but one word in 10,000, and every word of 97 documents in 100."""
    wrong = total = equal = 0
    for text in texts:
        theirs, ours = split_into_words(text), [w for c in text.split() for w in split_chunk(c)]
        wrong += len(_spans(theirs) - _spans(ours))
        total += len(theirs)
        equal += theirs == ours
    print(f"words: {wrong} of {total} differ; {equal} of {len(texts)} documents are equal")
    assert wrong <= total / 10_000
    assert equal >= 0.97 * len(texts)


def _spans(words):
    ends = np.cumsum([len(word) for word in words]).tolist()
    return {(end - len(word), end) for end, word in zip(ends, words, strict=True)}


def test_measures_are_those_of_datatrove(texts):
    ours = measure(texts, Vocabulary(), stop_words=GopherQuality().stop_words)
    same_words = [
        number
        for number, text in enumerate(texts)
        if split_into_words(text) == [w for c in text.split() for w in split_chunk(c)]
    ]
    different = []
    for number in same_words:
        for name, theirs in _peer_measures(texts[number]).items():
            value = getattr(ours[number], name)
            if value != pytest.approx(theirs, rel=1e-12, abs=1e-15):
                different.append((number, name, value, theirs))
    print(f"measures of {len(same_words)} documents with equal words: {different}")
    # Only where other words have the same letters, in tables of numbers for instance.
    assert {name for _, name, _, _ in different} <= {"duplicate_ngram_characters"}
    assert len(different) <= len(same_words) / 100


def _peer_measures(text):
    words = split_into_words(text)
    plain = [w for w in words if any(c not in peer_punctuation() for c in w)]
    lines = peer.re.split(r"\n+", text)
    paragraphs = peer.re.split(r"\n{2,}", text.strip())
    full = [line for line in text.split("\n") if line.strip()]
    grams = {n: peer.get_n_grams(words, n) for n in (2, 3, 4)}
    return {
        "num_words": len(plain),
        "mean_word_length": np.mean([len(w) for w in plain]) if plain else 0.0,
        "alphabetic_words": sum(any(c.isalpha() for c in w) for w in words) / len(words),
        "num_stop_words": len(set(GopherQuality().stop_words) & set(words)),
        "duplicate_paragraphs": peer.find_duplicates(paragraphs)[0] / len(paragraphs),
        "duplicate_paragraph_characters": peer.find_duplicates(paragraphs)[1] / len(text),
        "duplicate_lines": peer.find_duplicates(lines)[0] / len(lines),
        "duplicate_line_characters": peer.find_duplicates(lines)[1] / len(text),
        "repeated_line_characters": peer.find_duplicates(full)[1] / len(text.replace("\n", "")),
        "newlines_per_word": text.count("\n") / len(words),
        "top_ngram_characters": tuple(
            peer.find_top_duplicate(found) / len(text) if found else 0.0 for found in grams.values()
        ),
        "duplicate_ngram_characters": tuple(
            peer.find_all_duplicate(words, n) / len(text) for n in range(5, 11)
        ),
    }


def peer_punctuation():
    from datatrove.utils.text import PUNCTUATION_SET  # type: ignore[import-not-found]

    return PUNCTUATION_SET


@pytest.mark.parametrize("name", PAIRS)
def test_decisions_reasons_and_edits_are_those_of_datatrove(texts, name):
    rules, peer_filter = PAIRS[name]
    different = []
    judge = peer_filter()
    for number, text in enumerate(texts):
        document, dropped = PeerDocument(text=text, id="x"), Dropped()
        theirs = judge.filter(document)
        kept = list(RuleFilter((rules,)).keep([Document("x", text)], dropped))
        if theirs is True:
            same = [document.text] == [found.text for found in kept]
        else:
            reason = f"{name}: {REASONS[theirs[1]]}"
            reasons = {reason} | ({"c4: lines left"} if reason == "c4: sentences" else set())
            same = set(dropped.counts) <= reasons and not kept
        if not same:
            different.append((number, theirs, dict(dropped.examples)))
    print(f"{name}: decisions that differ: {different}")
    assert len(different) <= len(texts) / 500
