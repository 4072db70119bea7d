"""Finds texts of evaluation sets in documents, by word n-grams.

Whatever an item has in a row of `ngram` words is looked for, and a shorter text as a whole. What
all texts of a field begin or end with ("Question:", "Answer:") is left out first: a copy of the
question alone is contamination too. n-grams that are numbers for the most part do not count.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np

from llama_jax.config import Decontamination

from ..document import Document, Dropped
from .batches import batches
from .evaluation_files import ItemText, evaluation_files, fingerprint, read_items
from .word_hashes import HashedWords, hash_words, ngrams

_MAX_TEMPLATE = 16
_TEMPLATE_SHARE = 0.9
_MIN_FIELD = 20
_MAX_SHOWN = 120
_BITS_PER_KEY = 32
_NUMERAL = re.compile(r"(?<!\w)\d+(?!\w)")

_Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Keys(NamedTuple):
    """n-grams to look for and the items that have them.

    Attributes:
        n: Words of each.
        keys: Their numbers, sorted; one n-gram of several items stands there several times.
        items: Index of the item of each.
        words: Words that must match in all; more than `n` for some of the short texts.
        whole: Number of so many words.
        bits: A bit for each value of a key's upper bits; most n-grams of a corpus meet a zero.
    """

    n: int
    keys: np.ndarray
    items: np.ndarray
    words: np.ndarray
    whole: np.ndarray
    bits: np.ndarray


class Match(NamedTuple):
    """Words of a text that an evaluation item has too; `end` is after the last."""

    text: int
    start: int
    end: int
    item: int


class Index:
    """n-grams of evaluation items.

    Args:
        texts: Of all items.
        config: Its sizes.
    """

    def __init__(self, texts: list[ItemText], config: Decontamination):
        self.items = list(dict.fromkeys(text.item for text in texts))
        number_of = {item: number for number, item in enumerate(self.items)}
        item_of = np.array([number_of[text.item] for text in texts], np.int64)
        hashed = hash_words([text.text for text in texts])
        first, last = _without_templates(texts, hashed, config.min_words)
        # Counting from 1 to 13 is nobody's test item.
        says = np.append(0, np.cumsum(~np.isin(hashed.numbers, _numerals(texts))))
        self._keys = []
        n = config.ngram
        found, at = ngrams(hashed.numbers, n), np.arange(max(len(hashed.numbers) - n + 1, 0))
        text = hashed.text[at]
        inside = (at >= first[text]) & (at + n <= last[text])
        at = at[inside & (2 * (says[at + n] - says[at]) >= n)]
        rows = (found[at], item_of[hashed.text[at]], np.full(len(at), n), found[at])
        self._keys.append(_keys(n, *_distinct(rows, config.max_items)))
        begin, parts = ngrams(hashed.numbers, config.min_words), []
        for length in range(config.min_words, n):
            short = np.flatnonzero(last - first == length)
            at = first[short]
            short = short[2 * (says[at + length] - says[at]) >= length]
            at, whole = first[short], ngrams(hashed.numbers, length)
            parts.append((begin[at], item_of[short], np.full(len(at), length), whole[at]))
        if parts:
            rows = cast(_Rows, tuple(map(np.concatenate, zip(*parts, strict=True))))
            self._keys.append(_keys(config.min_words, *_distinct(rows, config.max_items)))

    def matches(self, hashed: HashedWords) -> Iterator[Match]:
        """Every match in some texts, those of each in order of their items' kind, then place."""
        for keys in self._keys:
            if not len(keys.keys):
                continue
            found = ngrams(hashed.numbers, keys.n)
            at = np.flatnonzero(_has(keys.bits, found))
            left = np.searchsorted(keys.keys, found[at], side="left")
            right = np.searchsorted(keys.keys, found[at], side="right")
            for place, low, high in zip(at.tolist(), left.tolist(), right.tolist(), strict=True):
                yield from _check(hashed, place, keys, range(low, high))


def _check(hashed: HashedWords, place: int, keys: Keys, rows: range) -> Iterator[Match]:
    for row in rows:
        end = place + int(keys.words[row])
        if end > len(hashed.text) or hashed.text[place] != hashed.text[end - 1]:
            continue
        if ngrams(hashed.numbers[place:end], end - place)[0] == keys.whole[row]:
            yield Match(int(hashed.text[place]), place, end, int(keys.items[row]))


def _distinct(rows: _Rows, max_items: int) -> _Rows:
    """Rows in order of their keys, once each; those that many items have are left out."""
    keys, items, words, whole = rows
    order = np.lexsort((items, whole, keys))
    items, whole = items[order], whole[order]
    new = np.append(True, (whole[1:] != whole[:-1]) | (items[1:] != items[:-1]))[: len(items)]
    order = order[new]
    _, which, counts = np.unique(whole[new], return_inverse=True, return_counts=True)
    order = order[counts[which] <= max_items]
    return keys[order], rows[1][order], words[order], rows[3][order]


def _keys(
    n: int, keys: np.ndarray, items: np.ndarray, words: np.ndarray, whole: np.ndarray
) -> Keys:
    width = max((len(keys) * _BITS_PER_KEY).bit_length(), 16)
    upper = keys >> np.uint64(64 - width)
    bits = np.zeros(1 << (width - 3), np.uint8)
    np.bitwise_or.at(bits, upper >> np.uint64(3), _bit(upper))
    return Keys(n, keys, items, words, whole, bits)


def _bit(upper: np.ndarray) -> np.ndarray:
    return np.uint8(1) << (upper & np.uint64(7)).astype(np.uint8)


def _has(bits: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    width = (len(bits) * 8).bit_length() - 1
    upper = numbers >> np.uint64(64 - width)
    return (bits[upper >> np.uint64(3)] & _bit(upper)) != 0


def _numerals(texts: list[ItemText]) -> np.ndarray:
    """The numbers of words that are digits alone."""
    found = set(itertools.chain.from_iterable(_NUMERAL.findall(text.text) for text in texts))
    return hash_words(sorted(found)).numbers


def _without_templates(
    texts: list[ItemText], hashed: HashedWords, min_words: int
) -> tuple[np.ndarray, np.ndarray]:
    """First word of each text and the one after its last, what its field's texts share cut off.

    A text that would be too short without keeps it.
    """
    bounds = np.searchsorted(hashed.text, np.arange(len(texts) + 1))
    first, last = bounds[:-1].copy(), bounds[1:].copy()
    fields: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    for index, text in enumerate(texts):
        fields[text.field].append(index)
    for field in fields.values():
        if len(field) < _MIN_FIELD:
            continue
        rows = np.array(field)
        for ends, before in ((first, 0), (last, 1)):
            for _ in range(_MAX_TEMPLATE):
                left = rows[first[rows] < last[rows]]
                words = hashed.numbers[ends[left] - before]
                values, counts = np.unique(words, return_counts=True)
                if not len(counts) or counts.max() < _TEMPLATE_SHARE * len(rows):
                    break
                ends[left[words == values[counts.argmax()]]] += 1 - 2 * before
    short = last - first < min_words
    return np.where(short, bounds[:-1], first), np.where(short, bounds[1:], last)


@functools.lru_cache(2)
def _open_index(config: Decontamination, print_of_files: str) -> Index:
    """The index of some files; `print_of_files` makes changed files a new one."""
    texts = [
        text for name, path in evaluation_files(config.paths) for text in read_items(name, path)
    ]
    return Index(texts, config)


class DecontaminationStage:
    """Drops documents that have a text of an evaluation item, or cuts it out of them.

    Raises:
        ValueError: If there is no evaluation file, or one is damaged.
    """

    def __init__(self, config: Decontamination):
        self._config = config
        self._fingerprint = fingerprint(evaluation_files(config.paths))
        # What is done with a match makes no difference to the index.
        self._index = _open_index(dataclasses.replace(config, action="drop"), self._fingerprint)

    def fingerprint(self) -> str:
        """Changes with the evaluation files."""
        return self._fingerprint

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """See `DocumentFilter`; the items found are noted, with in how many documents each is."""
        for batch in batches(documents):
            yield from self._keep(batch, dropped)

    def _keep(self, batch: list[Document], dropped: Dropped) -> Iterator[Document]:
        hashed = hash_words([document.text for document in batch])
        found: collections.defaultdict[int, _Found] = collections.defaultdict(_Found)
        for match in self._index.matches(hashed):
            found[match.text].add(match)
        for index, document in enumerate(batch):
            if index not in found:
                yield document
                continue
            matches = found[index]
            for item in matches.first:
                dropped.note("evaluation items found", self._index.items[item])
            if self._config.action == "drop":
                first = min(matches.first.values(), key=lambda match: (match.start, match.end))
                value = self._shown(document, first, hashed)
                dropped.add("decontamination", document.id, document.text, value=value)
            elif any(map(str.isalnum, cut := _cut(document.text, matches.spans, hashed))):
                yield document._replace(text=cut)
            else:
                dropped.add("decontamination: nothing else in it", document.id, document.text)

    def _shown(self, document: Document, match: Match, hashed: HashedWords) -> str:
        units = document.text.encode("utf-16-le")
        start, end = int(hashed.starts[match.start]), int(hashed.ends[match.end - 1])
        shown = units[2 * start : 2 * min(end, start + _MAX_SHOWN)].decode("utf-16-le", "replace")
        return f"{self._index.items[match.item]}: {' '.join(shown.split())}"


class _Found:
    """Matches of a text: the first of each item, and all words in common, as few spans."""

    def __init__(self) -> None:
        self.first: dict[int, Match] = {}
        self.spans: list[tuple[int, int]] = []

    def add(self, match: Match) -> None:
        self.first.setdefault(match.item, match)
        start, end = self.spans[-1] if self.spans else (0, -1)
        if start <= match.start < end:
            self.spans[-1] = (start, max(end, match.end))
        else:
            self.spans.append((match.start, match.end))


def _cut(text: str, spans: list[tuple[int, int]], hashed: HashedWords) -> str:
    """The text without the words in common, from the first one's start to the last one's end."""
    units, parts, at = text.encode("utf-16-le"), [], 0
    for first, last in sorted(spans):
        start, end = int(hashed.starts[first]), int(hashed.ends[last - 1])
        if start > at:
            parts.append(units[2 * at : 2 * start])
        at = max(at, end)
    return b"".join((*parts, units[2 * at :])).decode("utf-16-le")
