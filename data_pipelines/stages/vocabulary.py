"""Chunks that were met and what they were split into: each is split once in a long while.

A few thousand chunks make up most of any text.
"""

import array
import itertools
from typing import NamedTuple

import numpy as np

from .marks import kind_of
from .shapes import Splitter

_MAX_CHUNKS = 1 << 19
_MAX_CHARACTERS = 16 << 20
_AT_ONCE = 1 << 16


class Words(NamedTuple):
    """Words of some chunks, end to end, as numbers below the size of the vocabulary.

    Attributes:
        ids: The same number for the same word, until the vocabulary is emptied.
        num_words: Words of each chunk.
    """

    ids: np.ndarray
    num_words: np.ndarray


class Vocabulary:
    """Chunks seen so far and their words."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._chunks: dict[bytes, int] = {}
        self._ids: dict[str, int] = {}
        self._characters = 0
        self._splitter = Splitter()
        self._words, self._num_words = array.array("q"), array.array("q")
        self._lengths, self._kinds = array.array("q"), array.array("q")

    def make_room(self) -> None:
        """Forgets everything once it is much; numbers given before mean nothing after."""
        if len(self._chunks) > _MAX_CHUNKS or self._characters > _MAX_CHARACTERS:
            self._clear()

    def number(self, word: str) -> int | None:
        """The number of a word, if it was seen."""
        return self._ids.get(word)

    def lengths(self) -> np.ndarray:
        """Characters of each word."""
        return np.array(self._lengths, np.int64)

    def kinds(self) -> np.ndarray:
        """Kind of each word; see `marks.kind_of`."""
        return np.array(self._kinds, np.int64)

    def words(self, different: list[bytes], numbers: np.ndarray) -> Words:
        """Splits chunks.

        Args:
            different: Each different one once, in UTF-8.
            numbers: Their places in that list, one for each chunk.
        """
        known = map(self._chunks.get, different, itertools.repeat(-1))
        chunks = np.fromiter(known, np.int64, len(different))
        if new := [different[at] for at in np.flatnonzero(chunks < 0).tolist()]:
            for start in range(0, len(new), _AT_ONCE):
                self._learn(new[start : start + _AT_ONCE])
            chunks[chunks < 0] = list(map(self._chunks.__getitem__, new))
        num_words = np.array(self._num_words, np.int64)
        starts = np.cumsum(num_words) - num_words
        chunks = chunks[numbers]
        counts = num_words[chunks]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        at = np.arange(total) + np.repeat(starts[chunks] - (ends - counts), counts)
        return Words(np.array(self._words, np.int64)[at], counts)

    def _learn(self, chunks: list[bytes]) -> None:
        for group in self._splitter.split([c.decode("utf-8", "surrogatepass") for c in chunks]):
            new = [word for word in dict.fromkeys(group.words) if word not in self._ids]
            self._ids.update(zip(new, itertools.count(len(self._ids))))
            self._lengths.extend(map(len, new))
            self._kinds.extend(map(kind_of, new))
            self._words.extend(map(self._ids.__getitem__, group.words))
            self._num_words.extend(group.num_words)
            self._chunks.update(
                zip((chunks[at] for at in group.which), itertools.count(len(self._chunks)))
            )
        self._characters += sum(map(len, chunks))
