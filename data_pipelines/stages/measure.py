"""What rules look at: every measure of a text, from one split into words.

Values equal those of datatrove 0.10's filters, computed for a batch of documents at a time by
sorting numbers of words. Intended differences:

- words are split as `words` says, not by spaCy;
- repeated n-grams are sequences of equal words; datatrove joins their letters, so that "1 23" and
  "12 3" are the same to it;
- terminal punctuation is Unicode's Sentence_Terminal, which has some more scripts and lacks three
  Khmer marks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .marks import BETWEEN, LETTERS, SENTENCE_END, SYMBOL, ends_sentence
from .ngrams import repeated_characters
from .words import Vocabulary


class Measures(NamedTuple):
    """Measures of one text; shares are in [0, 1] unless a word says otherwise.

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
        duplicate_paragraphs: Share of paragraphs that repeat an earlier one.
        duplicate_paragraph_characters: Share of the text's characters in those.
        duplicate_lines: Share of lines that repeat an earlier one.
        duplicate_line_characters: Share of the text's characters in those.
        top_ngram_characters: Of the most frequent 2-, 3- and 4-gram times its count, for each of
            the text's; may be above 1.
        duplicate_ngram_characters: Share in 5- to 10-grams seen before.
        punctuated_lines: Share of lines with text that end in terminal punctuation.
        short_lines: Share of them that are short.
        repeated_line_characters: As `duplicate_line_characters`, of lines with text, line breaks
            not counted.
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
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    duplicate_lines: float
    duplicate_line_characters: float
    top_ngram_characters: tuple[float, ...]
    duplicate_ngram_characters: tuple[float, ...]
    punctuated_lines: float
    short_lines: float
    repeated_line_characters: float
    newlines_per_word: float


def measure(
    texts: Sequence[str],
    vocabulary: Vocabulary,
    *,
    stop_words: Sequence[str] = (),
    short_line_length: int = 30,
) -> list[Measures]:
    """Measures of each text.

    Args:
        texts: Their order and company do not matter; many at once are faster.
        vocabulary: Remembers words between calls; changes no value.
        stop_words: Those that `num_stop_words` counts.
        short_line_length: Characters of a short line, at most.
    """
    if not texts:
        return []
    vocabulary.make_room()
    chunks: list[str] = []
    chunks_of_lines: list[int] = []
    lines_of_texts, of_lines = [], []
    for text in texts:
        lines = [line.split() for line in text.splitlines()]
        for line in lines:
            chunks += line
        chunks_of_lines += map(len, lines)
        lines_of_texts.append(len(lines))
        of_lines.append(_of_lines(text, lines, short_line_length))
    of_words = _of_words(vocabulary, chunks, chunks_of_lines, lines_of_texts, stop_words)
    return [
        _measures(text, words, lines)
        for text, words, lines in zip(texts, of_words, of_lines, strict=True)
    ]


def _measures(text: str, words: "_OfWords", lines: dict[str, float]) -> Measures:
    num_words, num_characters = max(words.total, 1), max(len(text), 1)
    return Measures(
        num_words=words.no_symbols,
        mean_word_length=words.characters / max(words.no_symbols, 1),
        hashes_per_word=text.count("#") / num_words,
        ellipses_per_word=(text.count("...") + text.count("…")) / num_words,
        alphabetic_words=words.alphabetic / num_words,
        num_stop_words=words.stop_words,
        num_sentences=words.sentences,
        top_ngram_characters=tuple(count / num_characters for count in words.top),
        duplicate_ngram_characters=tuple(count / num_characters for count in words.duplicate),
        newlines_per_word=text.count("\n") / num_words,
        **lines,
    )


def _of_lines(text: str, split: list[list[str]], short_line_length: int) -> dict[str, float]:
    # Split at two or more line breaks, and at one or more; `re` is ten times slower.
    paragraphs = [part.lstrip("\n") for part in text.strip().split("\n\n") if part]
    lines = [""] * (text.startswith("\n") + text.endswith("\n"))
    lines += filter(None, text.split("\n"))
    full = [line for line in lines if line and not line.isspace()]
    num_characters, num_full = max(len(text), 1), max(len(full), 1)
    bullets = sum(1 for line in split if line and line[0][0] in "•-")
    ellipses = sum(1 for line in split if line and line[-1].endswith(("...", "…")))
    return {
        "bullet_lines": bullets / max(len(split), 1),
        "ellipsis_lines": ellipses / max(len(split), 1),
        "duplicate_paragraphs": _num_repeated(paragraphs) / max(len(paragraphs), 1),
        "duplicate_paragraph_characters": _characters_repeated(paragraphs) / num_characters,
        "duplicate_lines": _num_repeated(lines) / max(len(lines), 1),
        "duplicate_line_characters": _characters_repeated(lines) / num_characters,
        "punctuated_lines": sum(ends_sentence(line[-1]) for line in full) / num_full,
        "short_lines": sum(len(line) <= short_line_length for line in full) / num_full,
        "repeated_line_characters": _characters_repeated(full)
        / max(len(text) - text.count("\n"), 1),
    }


def _num_repeated(parts: list[str]) -> int:
    return len(parts) - len(set(parts))


def _characters_repeated(parts: list[str]) -> int:
    different = set(parts)
    if len(different) == len(parts):
        return 0
    return sum(map(len, parts)) - sum(map(len, different))


class _OfWords(NamedTuple):
    total: int
    no_symbols: int
    characters: int
    alphabetic: int
    stop_words: int
    sentences: int
    top: list[int]
    duplicate: list[int]


def _of_words(
    vocabulary: Vocabulary,
    chunks: list[str],
    chunks_of_lines: list[int],
    lines_of_texts: list[int],
    stop_words: Sequence[str],
) -> list[_OfWords]:
    ids, words_of_chunks = vocabulary.words(chunks)
    lengths_of, kinds_of = vocabulary.lengths(), vocabulary.kinds()
    lengths, kinds = lengths_of[ids], kinds_of[ids]
    words_of_lines = _sums(words_of_chunks, chunks_of_lines)
    num_words = _sums(words_of_lines, lines_of_texts)
    is_word = kinds & SYMBOL == 0
    text_of = np.repeat(np.arange(len(num_words)), num_words)
    num_stop_words = np.zeros(len(num_words), np.int64)
    for word in set(stop_words):
        if (number := vocabulary.number(word)) is not None:
            num_stop_words[np.unique(text_of[ids == number])] += 1
    top, duplicate = repeated_characters(ids, lengths, num_words, len(lengths_of))
    columns = (
        num_words,
        _sums(is_word, num_words),
        _sums(lengths * is_word, num_words),
        _sums(kinds & LETTERS, num_words),
        num_stop_words,
        _sums(_sentences(kinds, words_of_lines), lines_of_texts),
        top,
        duplicate,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [_OfWords(*row) for row in rows]


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
