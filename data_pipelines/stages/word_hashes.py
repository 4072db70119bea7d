"""Words of many texts as 64-bit numbers, all at once.

A word is a run of letters, digits and marks in lower case; all else separates, so that punctuation,
quotes and line breaks make no difference. Where writing has no spaces (Chinese characters, kana)
every character is a word. Characters beyond the Basic Multilingual Plane, emoji for the most part,
separate.

The number of a word is a polynomial of its characters' numbers modulo 2^64; two different words
have the same one with a probability near 2^-58.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_PIECE = 1 << 18
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SEPARATES, _JOINS, _ALONE = range(3)


class HashedWords(NamedTuple):
    """Words of texts end to end.

    Attributes:
        numbers: One a word, equal for equal words.
        starts: First character of each word, in UTF-16 units from the start of its text.
        ends: After its last.
        text: Index of each word's text; grows.
    """

    numbers: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    text: np.ndarray


def hash_words(texts: Sequence[str]) -> HashedWords:
    """The words of all texts; a long text is worked on in pieces, so that memory is bounded."""
    encoded = [
        np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16) for text in texts
    ]
    found = [_words(*batch) for batch in _batches(encoded)]
    if not found:
        return HashedWords(np.zeros(0, np.uint64), *(np.zeros(0, np.int64) for _ in range(3)))
    return HashedWords(*map(np.concatenate, zip(*found, strict=True)))


def ngrams(numbers: np.ndarray, n: int) -> np.ndarray:
    """The number of the `n` words that start at each word; `n - 1` fewer than there are words."""
    count = max(len(numbers) - n + 1, 0)
    found = np.zeros(count, np.uint64)
    for k in range(n):
        found = found * _BASE + numbers[k : k + count]
    return mix(found)


def mix(numbers: np.ndarray) -> np.ndarray:
    """Spreads every bit over all; different numbers stay different.

    Source: the finaliser of SplitMix64, Steele et al. 2014 (doi:10.1145/2714064.2660195).
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _batches(encoded: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Units; where each text begins in them and what to add to positions; first text's index."""
    separator = np.array([ord(" ")], np.uint16)
    first, size = 0, 0
    for index, units in enumerate([*encoded, None]):
        if index > first and (units is None or size + len(units) > _PIECE):
            yield from _batch(encoded[first:index], first, separator)
            first, size = index, 0
        size += 0 if units is None else len(units) + 1


def _batch(
    texts: list[np.ndarray], first: int, separator: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if len(texts) > 1 or len(texts[0]) <= _PIECE:
        starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
        joined = np.concatenate([part for text in texts for part in (text, separator)])
        yield joined, np.arange(first, first + len(texts)), starts
        return
    (text,), kinds, at = texts, _tables()[0], 0
    while at < len(text):
        end = min(at + _PIECE, len(text))
        if end < len(text) and len(spaces := np.flatnonzero(kinds[text[at:end]] == _SEPARATES)):
            end = at + int(spaces[-1]) + 1
        yield text[at:end], np.array([first]), np.array([-at])
        at = end


def _words(units: np.ndarray, texts: np.ndarray, offsets: np.ndarray) -> HashedWords:
    kinds, values = _tables()
    powers, inverses = _powers()
    kind = kinds[units]
    alone = kind == _ALONE
    inside = kind != _SEPARATES
    follows = inside[1:] & inside[:-1] & ~alone[1:] & ~alone[:-1]
    starts = np.flatnonzero(inside & ~np.concatenate(([False], follows)))
    ends = np.flatnonzero(inside & ~np.concatenate((follows, [False]))) + 1
    if not len(starts):
        empty = np.zeros(0, np.int64)
        return HashedWords(np.zeros(0, np.uint64), empty, empty, empty)
    sums = np.add.reduceat(values[units] * powers[: len(units)], starts)
    numbers = mix(sums * inverses[starts])
    number = np.searchsorted(offsets, starts, side="right") - 1
    return HashedWords(numbers, starts - offsets[number], ends - offsets[number], texts[number])


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each UTF-16 unit what it does, and its number; that of a separator is zero."""
    kinds = np.zeros(1 << 16, np.uint8)
    lower = np.arange(1 << 16, dtype=np.uint64)
    for code in range(1 << 16):
        character = chr(code)
        if unicodedata.category(character)[0] not in "LNM":
            continue
        alone = 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF
        kinds[code] = _ALONE if alone else _JOINS
        lower[code] = ord(character.lower()[0])
    return kinds, np.where(kinds == _SEPARATES, np.uint64(0), mix(lower + _BASE))


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base, and of its inverse modulo 2^64, enough for a piece."""
    both = []
    for base in (_BASE, np.uint64(pow(int(_BASE), -1, 1 << 64))):
        factors = np.full(_PIECE + 1, base, np.uint64)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]
