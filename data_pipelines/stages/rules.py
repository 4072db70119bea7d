"""Drops documents that break a rule, and says which rule and by what value.

C4 comes first, wherever it stands among a source's rules: it removes lines from a document, or
drops it for a phrase, and every rule, C4's count of sentences first, looks at what is left. The
other rules follow in the order given. The first that is broken drops the document. With C4 in
front, decisions are those of datatrove 0.10's filters in the same order, but for what
`measure` says.
"""

import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from llama_jax.config import C4Rules, FineWebRules, GopherQuality, GopherRepetition, Rule

from ..document import Document, Dropped
from .measure import Measures, NgramMeasures
from .ngrams import DUPLICATE, TOP
from .vocabulary import Vocabulary

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
        measures = Measures(
            [document.text for document in batch],
            self._vocabulary,
            stop_words=self._stop_words,
            short_line_length=self._short_line_length,
        )
        broken = first_broken(measures, len(batch), self._rules)
        for at, document in enumerate(batch):
            if at in broken:
                _record(document, broken[at], dropped)
            else:
                yield document


@functools.cache
def _vocabulary() -> Vocabulary:
    """One for a process: what a word splits into does not depend on who asked first."""
    return Vocabulary()


def first_broken(measures: Measures, count: int, rules: Sequence[Rule]) -> dict[int, Broken]:
    """The first rule that each text breaks, of those that break one; rules in order.

    Texts that are dropped for their lines are not split into words, and those dropped for their
    words are not searched for n-grams, where the rules come in that order.
    """
    broken: dict[int, Broken] = {}
    checks = [(_NAMES[type(rule)], check) for rule in rules for check in _checks(rule)]
    for group, members in itertools.groupby(checks, key=lambda named: named[1].group):
        left = [at for at in range(count) if at not in broken]
        found = group(measures, left)
        members = list(members)
        for at in left:
            for name, check in members:
                if (value := check.value(found[at])) < check.low:
                    broken[at] = Broken(f"{name}: {check.name}", value, f"at least {check.low:g}")
                elif value > check.high:
                    broken[at] = Broken(f"{name}: {check.name}", value, f"at most {check.high:g}")
                else:
                    continue
                break
    return broken


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


class _Check(NamedTuple):
    """A limit on one measure.

    Attributes:
        name: For people.
        group: Gives the measures that it is one of.
        value: Takes it from those of one text.
        low: Least value that is allowed.
        high: Largest.
    """

    name: str
    group: Callable[[Measures, list[int]], dict[int, Any]]
    value: Callable[[Any], float]
    low: float
    high: float


def _lines(name: str, measure: str, low: float, high: float = _NO_LIMIT) -> _Check:
    return _Check(name, Measures.lines, operator.attrgetter(measure), low, high)


def _words(name: str, measure: str, low: float, high: float = _NO_LIMIT) -> _Check:
    return _Check(name, Measures.words, operator.attrgetter(measure), low, high)


def _ngrams(kind: str, first: int, limits: Sequence[float]) -> Iterator[_Check]:
    def one(at: int) -> Callable[[NgramMeasures], float]:
        return lambda measures: getattr(measures, f"{kind}_ngram_characters")[at]

    for at, limit in enumerate(limits):
        yield _Check(f"{kind} {first + at}-gram characters", Measures.ngrams, one(at), 0, limit)


def _checks(rule: Rule) -> Iterator[_Check]:
    """In datatrove's order."""
    match rule:
        case C4Rules():
            yield _words("sentences", "num_sentences", rule.min_sentences)
        case GopherQuality():
            yield _words("words", "num_words", rule.min_words, rule.max_words)
            low, high = rule.min_mean_word_length, rule.max_mean_word_length
            yield _words("mean word length", "mean_word_length", low, high)
            yield _words("hashes per word", "hashes_per_word", 0, rule.max_hashes_per_word)
            yield _words("ellipses per word", "ellipses_per_word", 0, rule.max_ellipses_per_word)
            yield _words("bullet lines", "bullet_lines", 0, rule.max_bullet_lines)
            yield _words("ellipsis lines", "ellipsis_lines", 0, rule.max_ellipsis_lines)
            yield _words("alphabetic words", "alphabetic_words", rule.min_alphabetic_words)
            yield _words("stop words", "num_stop_words", rule.min_stop_words)
        case GopherRepetition():
            for part in ("paragraph", "line"):
                for what in (f"{part}s", f"{part}_characters"):
                    name = f"duplicate_{what}"
                    most = getattr(rule, f"max_{name}")
                    yield _lines(name.replace("_", " "), name, 0, most)
            yield from _ngrams("top", TOP[0], rule.max_top_ngram_characters)
            yield from _ngrams("duplicate", DUPLICATE[0], rule.max_duplicate_ngram_characters)
        case FineWebRules():
            yield _lines("punctuated lines", "punctuated_lines", rule.min_punctuated_lines)
            yield _lines("short lines", "short_lines", 0, rule.max_short_lines)
            most = rule.max_duplicate_line_characters
            yield _lines("duplicate line characters", "repeated_line_characters", 0, most)
            yield _words("newlines per word", "newlines_per_word", 0, rule.max_newlines_per_word)
