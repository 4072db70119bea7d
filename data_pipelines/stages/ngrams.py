"""Characters in repeated n-grams of words, for many documents at once and without hashing.

A repeated n-gram starts with a repeated (n-1)-gram. So each n sorts only what was repeated at
n - 1, as pairs of numbers (the (n-1)-gram's rank, the next word): exact, and ever fewer.
"""

from typing import NamedTuple

import numpy as np

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)


class _Documents(NamedTuple):
    """Words of documents end to end.

    Attributes:
        ids: Number of each word, below `vocab_size`.
        ends: Where each document ends.
        document: Of each word.
        characters: Before each word, and in all.
        vocab_size: Above every number.
    """

    ids: np.ndarray
    ends: np.ndarray
    document: np.ndarray
    characters: np.ndarray
    vocab_size: int


class _Runs(NamedTuple):
    """n-grams that occur more than once.

    Attributes:
        positions: First words of their occurrences, those of one n-gram together.
        ranks: One number a different n-gram; grows with the document.
    """

    positions: np.ndarray
    ranks: np.ndarray


def repeated_characters(
    ids: np.ndarray, lengths: np.ndarray, num_words: np.ndarray, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Characters of the most frequent n-gram, times its count, and of n-grams seen before.

    Between the words of a most frequent n-gram a space is counted. Of n-grams equally frequent the
    first counts. n-grams seen before are found from left to right and do not overlap.

    Args:
        ids: Words of all documents, end to end.
        lengths: Characters of each.
        num_words: Words of each document.
        vocab_size: Above every id.

    Returns:
        One row a document; one column each for `TOP`, and for `DUPLICATE`.

    Source: Rae et al. 2021 (arXiv:2112.11446), table A1; the order of the search as in datatrove.
    """
    texts = _Documents(
        ids,
        np.cumsum(num_words),
        np.repeat(np.arange(len(num_words)), num_words),
        np.concatenate(([0], np.cumsum(lengths))),
        vocab_size,
    )
    top = np.zeros((len(num_words), len(TOP)), np.int64)
    duplicate = np.zeros((len(num_words), len(DUPLICATE)), np.int64)
    runs = _Runs(np.arange(len(ids)), texts.document * vocab_size + ids)
    for n in range(2, DUPLICATE[-1] + 1):
        runs, counts = _extend(runs, n, texts)
        if n in TOP:
            _most_frequent(runs, counts, n, texts, top[:, n - TOP[0]])
        else:
            _seen_before(runs, n, texts, duplicate[:, n - DUPLICATE[0]])
    return top, duplicate


def _extend(shorter: _Runs, n: int, texts: _Documents) -> tuple[_Runs, np.ndarray]:
    """Repeated n-grams among those that start with a repeated (n-1)-gram; how often each is."""
    inside = shorter.positions + n <= texts.ends[texts.document[shorter.positions]]
    positions = shorter.positions[inside]
    keys = shorter.ranks[inside] * texts.vocab_size + texts.ids[positions + n - 1]
    order = np.argsort(keys)
    keys, positions = keys[order], positions[order]
    is_first = np.concatenate((np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]))
    starts = np.flatnonzero(is_first)
    counts = np.diff(np.append(starts, len(keys)))
    repeated = counts > 1
    kept = np.repeat(repeated, counts)
    counts = counts[repeated]
    return _Runs(positions[kept], np.repeat(np.arange(len(counts)), counts)), counts


def _most_frequent(
    runs: _Runs, counts: np.ndarray, n: int, texts: _Documents, out: np.ndarray
) -> None:
    starts = np.concatenate(([0], texts.ends[:-1]))
    best = np.where(texts.ends - starts >= n, starts, -1)
    times = np.ones_like(best)
    if len(counts):
        firsts = np.minimum.reduceat(runs.positions, np.cumsum(counts) - counts)
        document = texts.document[firsts]
        cuts = np.flatnonzero(np.append(True, document[1:] != document[:-1]))
        most = np.maximum.reduceat(counts, cuts)
        per_document = np.diff(np.append(cuts, len(document)))
        wins = counts == np.repeat(most, per_document)
        first = np.minimum.reduceat(np.where(wins, firsts, len(texts.ids)), cuts)
        best[document[cuts]], times[document[cuts]] = first, most
    has = best >= 0
    at = best[has]
    out[has] = (texts.characters[at + n] - texts.characters[at] + n - 1) * times[has]


def _seen_before(runs: _Runs, n: int, texts: _Documents, out: np.ndarray) -> None:
    order = np.argsort(runs.positions)
    positions = runs.positions[order]
    characters = texts.characters[positions + n] - texts.characters[positions]
    seen: set[int] = set()
    free, found = 0, []
    for index, (at, rank) in enumerate(
        zip(positions.tolist(), runs.ranks[order].tolist(), strict=True)
    ):
        if at < free:
            continue
        if rank in seen:
            free = at + n
            found.append(index)
        else:
            seen.add(rank)
    np.add.at(out, texts.document[positions[found]], characters[found])
