"""Drops documents that break a rule, and says which rule and by what value.

C4 comes first, wherever it stands among a source's rules: it removes lines from a document, or
drops it for a phrase, and every rule, C4's count of sentences first, looks at what is left. The
other rules follow in the order given. The first that is broken drops the document. With C4 in
front, decisions are those of datatrove 0.10's filters in the same order, but for what
`measure` says.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from llama_jax.config import C4Rules, FineWebRules, GopherQuality, GopherRepetition, Rule

from ..document import Document, Dropped
from .measure import Measures, measure
from .ngrams import DUPLICATE, TOP
from .words import Vocabulary

_BATCH_CHARACTERS = 1 << 20
_BATCH_DOCUMENTS = 1024
_MAX_CHARACTERS = 1 << 26

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_TERMINAL = (".", "?", "!", '"', "'")
_POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


class Broken(NamedTuple):
    """The first rule that a document breaks.

    Attributes:
        rule: Its name, such as "gopher_quality: mean word length".
        value: What the document has.
        limit: What is allowed, such as "at most 10".
    """

    rule: str
    value: float
    limit: str


class RuleFilter:
    """Keeps the documents that break no rule.

    Args:
        rules: At most one of a kind.
    """

    def __init__(self, rules: Sequence[Rule]):
        self._c4 = next((rule for rule in rules if isinstance(rule, C4Rules)), None)
        self._rules = sorted(rules, key=lambda rule: not isinstance(rule, C4Rules))
        quality = next((rule for rule in rules if isinstance(rule, GopherQuality)), None)
        fineweb = next((rule for rule in rules if isinstance(rule, FineWebRules)), FineWebRules())
        self._stop_words = quality.stop_words if quality else ()
        self._short_line_length = fineweb.short_line_length
        self._vocabulary = _vocabulary()

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """Documents that break no rule, in order, with C4's lines removed.

        Every other one is recorded in `dropped` under its rule, with its value.
        """
        batch: list[Document] = []
        size = 0
        for document in documents:
            if len(document.text) > _MAX_CHARACTERS:
                dropped.add(f"rules: longer than {_MAX_CHARACTERS:,} characters", document.id)
                continue
            if size + len(document.text) > _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
                yield from self._keep(batch, dropped)
                batch, size = [], 0
            batch.append(document)
            size += len(document.text)
        yield from self._keep(batch, dropped)

    def _keep(self, batch: list[Document], dropped: Dropped) -> Iterator[Document]:
        if self._c4 is not None:
            batch = list(_remove_lines(batch, self._c4, dropped))
        measured = measure(
            [document.text for document in batch],
            self._vocabulary,
            stop_words=self._stop_words,
            short_line_length=self._short_line_length,
        )
        for document, measures in zip(batch, measured, strict=True):
            if (broken := first_broken(measures, self._rules)) is None:
                yield document
            else:
                _record(document, broken, dropped)


@functools.cache
def _vocabulary() -> Vocabulary:
    """One for a process: what a word splits into does not depend on who asked first."""
    return Vocabulary()


def first_broken(measures: Measures, rules: Sequence[Rule]) -> Broken | None:
    """The first rule that a text with these measures breaks; rules in order."""
    for rule in rules:
        for name, value, low, high in _checks(measures, rule):
            if value < low:
                return Broken(f"{_NAMES[type(rule)]}: {name}", value, f"at least {low:g}")
            if value > high:
                return Broken(f"{_NAMES[type(rule)]}: {name}", value, f"at most {high:g}")
    return None


def remove_lines(text: str, rules: C4Rules) -> str | Broken:
    """The lines that C4 keeps, stripped, or why it drops the whole text.

    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.2; the order of checks as in
    datatrove 0.10.
    """
    kept = []
    for raw in text.splitlines():
        line = raw.strip()
        words = line.split()
        if len(line) > rules.max_word_length and max(map(len, words)) > rules.max_word_length:
            continue
        if rules.remove_citations and "[" in line:
            line = _CITATION.sub("", line)
        if rules.needs_terminal_punctuation and (
            not line.endswith(_TERMINAL) or line.endswith("...")
        ):
            continue
        if len(words) < rules.min_words_per_line:
            continue
        lower = line.lower()
        if rules.drop_lorem_ipsum and "lorem ipsum" in lower:
            return Broken("c4: lorem ipsum", 1, "none")
        if rules.remove_javascript and "javascript" in lower:
            continue
        if rules.drop_curly_brackets and "{" in line:
            return Broken("c4: curly bracket", 1, "none")
        if rules.remove_policies and any(phrase in lower for phrase in _POLICIES):
            continue
        kept.append(line)
    return "\n".join(kept).strip()


def _remove_lines(
    documents: list[Document], rules: C4Rules, dropped: Dropped
) -> Iterator[Document]:
    for document in documents:
        left = remove_lines(document.text, rules)
        if isinstance(left, Broken):
            _record(document, left, dropped)
        elif not left:
            _record(document, Broken("c4: lines left", 0, "at least 1"), dropped)
        else:
            yield document._replace(text=left)


def _record(document: Document, broken: Broken, dropped: Dropped) -> None:
    value = f"{broken.value:.4g}"
    dropped.add(broken.rule, document.id, document.text, value=value, allowed=broken.limit)


_NO_LIMIT = float("inf")
_NAMES = {
    GopherQuality: "gopher_quality",
    GopherRepetition: "gopher_repetition",
    C4Rules: "c4",
    FineWebRules: "fineweb",
}


def _checks(m: Measures, rule: Rule) -> Iterator[tuple[str, float, float, float]]:
    """Name, value, least and most, in datatrove's order."""
    match rule:
        case C4Rules():
            yield "sentences", m.num_sentences, rule.min_sentences, _NO_LIMIT
        case GopherQuality():
            yield "words", m.num_words, rule.min_words, rule.max_words
            low, high = rule.min_mean_word_length, rule.max_mean_word_length
            yield "mean word length", m.mean_word_length, low, high
            yield "hashes per word", m.hashes_per_word, 0, rule.max_hashes_per_word
            yield "ellipses per word", m.ellipses_per_word, 0, rule.max_ellipses_per_word
            yield "bullet lines", m.bullet_lines, 0, rule.max_bullet_lines
            yield "ellipsis lines", m.ellipsis_lines, 0, rule.max_ellipsis_lines
            yield "alphabetic words", m.alphabetic_words, rule.min_alphabetic_words, _NO_LIMIT
            yield "stop words", m.num_stop_words, rule.min_stop_words, _NO_LIMIT
        case GopherRepetition():
            yield "duplicate paragraphs", m.duplicate_paragraphs, 0, rule.max_duplicate_paragraphs
            value, most = m.duplicate_paragraph_characters, rule.max_duplicate_paragraph_characters
            yield "duplicate paragraph characters", value, 0, most
            yield "duplicate lines", m.duplicate_lines, 0, rule.max_duplicate_lines
            value, most = m.duplicate_line_characters, rule.max_duplicate_line_characters
            yield "duplicate line characters", value, 0, most
            tops = zip(TOP, m.top_ngram_characters, rule.max_top_ngram_characters, strict=True)
            for n, value, most in tops:
                yield f"top {n}-gram characters", value, 0, most
            values, limits = m.duplicate_ngram_characters, rule.max_duplicate_ngram_characters
            for n, value, most in zip(DUPLICATE, values, limits, strict=True):
                yield f"duplicate {n}-gram characters", value, 0, most
        case FineWebRules():
            yield "punctuated lines", m.punctuated_lines, rule.min_punctuated_lines, _NO_LIMIT
            yield "short lines", m.short_lines, 0, rule.max_short_lines
            value, most = m.repeated_line_characters, rule.max_duplicate_line_characters
            yield "duplicate line characters", value, 0, most
            yield "newlines per word", m.newlines_per_word, 0, rule.max_newlines_per_word
