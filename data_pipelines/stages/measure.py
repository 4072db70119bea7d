"""What rules look at: the measures of texts, from one look at their lines and one split into words.

Values equal those of datatrove 0.10's filters, computed for a batch of documents at a time by
sorting numbers of words. Intended differences:

- words are split as `words` says, not by spaCy;
- repeated n-grams are sequences of equal words; datatrove joins their letters, so that "1 23" and
  "12 3" are the same to it;
- white space is no word, which to spaCy's sentences it is: after "?" a no-break space begins one;
- terminal punctuation is Unicode's Sentence_Terminal, which has some more scripts and lacks three
  Khmer marks.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .chunks import find_chunks
from .marks import BETWEEN, LETTERS, SENTENCE_END, SYMBOL, ends_sentence
from .ngrams import repeated_characters
from .vocabulary import Vocabulary


class LineMeasures(NamedTuple):
    """Measures of a text's lines; shares are in [0, 1].

    Attributes:
        duplicate_paragraphs: Share of paragraphs that repeat an earlier one.
        duplicate_paragraph_characters: Share of the text's characters in those.
        duplicate_lines: Share of lines that repeat an earlier one.
        duplicate_line_characters: Share of the text's characters in those.
        punctuated_lines: Share of lines with text that end in terminal punctuation.
        short_lines: Share of them that are short.
        repeated_line_characters: As `duplicate_line_characters`, of lines with text, line breaks
            not counted.
    """

    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    duplicate_lines: float
    duplicate_line_characters: float
    punctuated_lines: float
    short_lines: float
    repeated_line_characters: float


class WordMeasures(NamedTuple):
    """Measures of a text's words, and of lines as they begin and end with words.

    Attributes:
        num_words: Words that are more than punctuation.
        mean_word_length: Of those words, characters.
        hashes_per_word: `#` for each word, punctuation included, as below.
        ellipses_per_word: `...` and `…` for each word.
        bullet_lines: Share of lines that start with a bullet.
        ellipsis_lines: Share of lines that end with an ellipsis.
        alphabetic_words: Share of words with a letter.
        num_stop_words: Different stop words.
        num_sentences: Summed over lines.
        newlines_per_word: Line breaks for each word.
    """

    num_words: int
    mean_word_length: float
    hashes_per_word: float
    ellipses_per_word: float
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float
    num_stop_words: int
    num_sentences: int
    newlines_per_word: float


class NgramMeasures(NamedTuple):
    """Measures of a text's repeated n-grams of words.

    Attributes:
        top_ngram_characters: Of the most frequent 2-, 3- and 4-gram times its count, for each of
            the text's; may be above 1.
        duplicate_ngram_characters: Share in 5- to 10-grams seen before.
    """

    top_ngram_characters: tuple[float, ...]
    duplicate_ngram_characters: tuple[float, ...]


class Measures:
    """Measures of texts, each group made when it is first asked for, of the texts asked for alone.

    Args:
        texts: Their order and company do not matter; many at once are faster.
        vocabulary: Remembers words between calls; changes no value.
        stop_words: Those that `num_stop_words` counts.
        short_line_length: Characters of a short line, at most.
    """

    def __init__(
        self,
        texts: Sequence[str],
        vocabulary: Vocabulary,
        *,
        stop_words: Sequence[str] = (),
        short_line_length: int = 30,
    ):
        vocabulary.make_room()
        self._texts, self._vocabulary = texts, vocabulary
        self._stop_words, self._short_line_length = stop_words, short_line_length
        self._lines: dict[int, LineMeasures] = {}
        self._words: dict[int, WordMeasures] = {}
        self._ngrams: dict[int, NgramMeasures] = {}
        self._ids: dict[int, np.ndarray] = {}

    def lines(self, which: Iterable[int]) -> dict[int, LineMeasures]:
        """Those of the texts at these places, and perhaps of others."""
        for at in which:
            if at not in self._lines:
                self._lines[at] = _of_lines(self._texts[at], self._short_line_length)
        return self._lines

    def words(self, which: Iterable[int]) -> dict[int, WordMeasures]:
        """Those of the texts at these places, and perhaps of others."""
        if new := [at for at in which if at not in self._words]:
            texts = [self._texts[at] for at in new]
            measured, ids = _of_words(texts, self._vocabulary, self._stop_words)
            self._words.update(zip(new, measured, strict=True))
            self._ids.update(zip(new, ids, strict=True))
        return self._words

    def ngrams(self, which: Iterable[int]) -> dict[int, NgramMeasures]:
        """Those of the texts at these places, and perhaps of others."""
        if new := [at for at in which if at not in self._ngrams]:
            self.words(new)
            lengths = self._vocabulary.lengths()
            ids = np.concatenate([self._ids[at] for at in new])
            num_words = np.array([len(self._ids[at]) for at in new])
            found = repeated_characters(ids, lengths[ids], num_words, len(lengths))
            for at, top, duplicate in zip(new, *(counts.tolist() for counts in found), strict=True):
                size = max(len(self._texts[at]), 1)
                self._ngrams[at] = NgramMeasures(
                    tuple(count / size for count in top),
                    tuple(count / size for count in duplicate),
                )
        return self._ngrams


def _of_lines(text: str, short_line_length: int) -> LineMeasures:
    # Split at two or more line breaks, and at one or more; `re` is ten times slower.
    paragraphs = [part.lstrip("\n") for part in text.strip().split("\n\n") if part]
    lines = [""] * (text.startswith("\n") + text.endswith("\n"))
    lines += filter(None, text.split("\n"))
    full = [line for line in lines if line and not line.isspace()]
    num_characters, num_full = max(len(text), 1), max(len(full), 1)
    return LineMeasures(
        duplicate_paragraphs=_num_repeated(paragraphs) / max(len(paragraphs), 1),
        duplicate_paragraph_characters=_characters_repeated(paragraphs) / num_characters,
        duplicate_lines=_num_repeated(lines) / max(len(lines), 1),
        duplicate_line_characters=_characters_repeated(lines) / num_characters,
        punctuated_lines=sum(ends_sentence(line[-1]) for line in full) / num_full,
        short_lines=sum(len(line) <= short_line_length for line in full) / num_full,
        repeated_line_characters=_characters_repeated(full) / max(len(text) - text.count("\n"), 1),
    )


def _num_repeated(parts: list[str]) -> int:
    return len(parts) - len(set(parts))


def _characters_repeated(parts: list[str]) -> int:
    different = set(parts)
    if len(different) == len(parts):
        return 0
    return sum(map(len, parts)) - sum(map(len, different))


def _of_words(
    texts: Sequence[str], vocabulary: Vocabulary, stop_words: Sequence[str]
) -> tuple[list[WordMeasures], list[np.ndarray]]:
    """Measures of each text, and the numbers of its words."""
    chunks = find_chunks(texts)
    ids, words_of_chunks = vocabulary.words(chunks.different, chunks.numbers)
    lengths, kinds = vocabulary.lengths()[ids], vocabulary.kinds()[ids]
    words_of_lines = _sums(words_of_chunks, chunks.of_lines)
    num_words = _sums(words_of_lines, chunks.lines)
    is_word = kinds & SYMBOL == 0
    text_of = np.repeat(np.arange(len(texts)), num_words)
    num_stop_words = np.zeros(len(texts), np.int64)
    for word in set(stop_words):
        if (number := vocabulary.number(word)) is not None:
            num_stop_words[np.unique(text_of[ids == number])] += 1
    plain, per_word, per_line = (
        _sums(is_word, num_words),
        np.maximum(num_words, 1),
        np.maximum(chunks.lines, 1),
    )
    columns = (
        plain,
        _sums(lengths * is_word, num_words) / np.maximum(plain, 1),
        np.array([text.count("#") for text in texts]) / per_word,
        np.array([text.count("...") + text.count("…") for text in texts]) / per_word,
        chunks.bullets / per_line,
        chunks.ellipses / per_line,
        _sums(kinds & LETTERS, num_words) / per_word,
        num_stop_words,
        _sums(_sentences(kinds, words_of_lines), chunks.lines),
        np.array([text.count("\n") for text in texts]) / per_word,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return list(itertools.starmap(WordMeasures, rows)), np.split(ids, np.cumsum(num_words)[:-1])


def _sentences(kinds: np.ndarray, words_of_lines: np.ndarray) -> np.ndarray:
    """Sentences of each line: one begins at each ordinary word after an end mark."""
    marks = np.concatenate(([0], np.cumsum(kinds & SENTENCE_END != 0)))
    ordinary = np.flatnonzero(kinds & BETWEEN == 0)
    starts = np.cumsum(words_of_lines) - words_of_lines
    line = np.repeat(np.arange(len(words_of_lines)), words_of_lines)[ordinary]
    before = np.maximum(np.concatenate(([0], ordinary[:-1])), starts[line])
    begins = marks[ordinary] > marks[before]
    more = np.bincount(line[begins], minlength=len(words_of_lines))
    return (words_of_lines > 0) + more


def _sums(values: np.ndarray, counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Sums of consecutive parts of `values`, so many each."""
    total = np.concatenate(([0], np.cumsum(values)))
    counts = np.asarray(counts, np.int64)
    ends = np.cumsum(counts)
    return total[ends] - total[ends - counts]
