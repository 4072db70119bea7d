"""Which row of which source each sample is: closed forms of the global sample counter.

Nothing here grows with the number of documents: an epoch of a source is a permutation of windows,
and each window holds a bounded number of documents.
"""

import functools
import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

MIXTURE_BLOCK = 8192


def permutation(size: int, *key: object) -> Int64[np.ndarray, " size"]:
    """A permutation of `range(size)` that depends on `key` alone.

    It sorts Philox's raw output, whose stream NumPy promises to keep; `Generator.permutation` may
    change from one version of NumPy to the next, and with it every run's order.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    bits = np.random.Philox(key=np.frombuffer(digest, "<u8")).random_raw(size)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)


class Mixture:
    """Deals samples to sources in blocks of 8192 with fixed counts, shuffled inside each block.

    Args:
        weights: Share of each source, in order; normalised here. A source has at least one sample
            of every block.
        seed: Of the order inside blocks.

    Attributes:
        counts: Samples of each source in every block.
        weights: Share of samples that each source has, as dealt.
    """

    def __init__(self, weights: tuple[float, ...], seed: int):
        self.counts = _apportion(weights, MIXTURE_BLOCK)
        self.weights: tuple[float, ...] = tuple((self.counts / MIXTURE_BLOCK).tolist())
        self._seed = seed
        self._deal = np.repeat(np.arange(len(weights)), self.counts)
        self._block = functools.lru_cache(maxsize=8)(self._make_block)

    def locate(
        self, samples: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Source of each sample, and how many samples of that source came before it."""
        if len(self.counts) == 1:
            return np.zeros_like(samples), samples
        sources, ranks = np.empty_like(samples), np.empty_like(samples)
        blocks, slots = np.divmod(samples, MIXTURE_BLOCK)
        for block in np.unique(blocks):
            here = blocks == block
            source_of, rank_of = self._block(int(block))
            sources[here] = source_of[slots[here]]
            ranks[here] = rank_of[slots[here]] + block * self.counts[sources[here]]
        return sources, ranks

    def drawn(self, samples: int) -> Int64[np.ndarray, " sources"]:
        """How many of the first `samples` samples came from each source."""
        if len(self.counts) == 1:
            return np.array([samples])
        blocks, rest = divmod(samples, MIXTURE_BLOCK)
        source_of, _ = self._block(blocks)
        started = np.bincount(source_of[:rest], minlength=len(self.counts))
        return self.counts * blocks + started

    def _make_block(
        self, block: int
    ) -> tuple[Int64[np.ndarray, " block"], Int64[np.ndarray, " block"]]:
        order = permutation(MIXTURE_BLOCK, self._seed, "mixture", block)
        source_of = self._deal[order]
        # Ranks count up in order of appearance: a stable sort by source lines them up.
        ranks = np.empty(MIXTURE_BLOCK, np.int64)
        firsts = np.cumsum(self.counts) - self.counts
        grouped = np.argsort(source_of, kind="stable")
        ranks[grouped] = np.arange(MIXTURE_BLOCK) - firsts[source_of[grouped]]
        return source_of, ranks


def _apportion(weights: tuple[float, ...], slots: int) -> Int64[np.ndarray, " sources"]:
    """Whole counts that sum to `slots`, by largest remainder, none below one."""
    share = np.asarray(weights, np.float64)
    share = share / share.sum() * slots
    counts = np.floor(share).astype(np.int64)
    by_remainder = np.argsort(counts - share, kind="stable")
    counts[by_remainder[: slots - counts.sum()]] += 1
    none = counts == 0
    counts[none] = 1
    counts[np.argmax(counts)] -= none.sum()
    return counts


class Place(NamedTuple):
    """Where rows lie, one entry a row.

    Attributes:
        epoch: Passes over the source completed before.
        window: Index of the window, in the order of the shards.
        row: Index of the row within the window's stream.
    """

    epoch: Int64[np.ndarray, " n"]
    window: Int64[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]


class RowOrder:
    """The order in which a source's rows are seen.

    Args:
        rows_of_window: Rows into which each window's stream is cut.
        key: What the order depends on: seed and name of the source.
    """

    def __init__(self, rows_of_window: Int64[np.ndarray, " windows"], *key: object):
        self.rows_per_epoch = int(rows_of_window.sum())
        self._rows_of_window = rows_of_window
        self._key = key
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
        self._rows = functools.lru_cache(maxsize=8)(self._make_rows)

    def locate(self, ranks: Int64[np.ndarray, " n"]) -> Place:
        """Where the `ranks`-th rows that are drawn from this source lie."""
        epochs, rest = np.divmod(ranks, self.rows_per_epoch)
        windows, rows = np.empty_like(ranks), np.empty_like(ranks)
        for epoch in np.unique(epochs):
            here = np.flatnonzero(epochs == epoch)
            order, ends = self._epoch(int(epoch))
            turn = np.searchsorted(ends, rest[here], side="right")
            windows[here] = order[turn]
            slot = rest[here] - (ends[turn] - self._rows_of_window[order[turn]])
            for window in np.unique(windows[here]):
                inside = windows[here] == window
                rows[here[inside]] = self._rows(int(epoch), int(window))[slot[inside]]
        return Place(epochs, windows, rows)

    def _make_epoch(
        self, epoch: int
    ) -> tuple[Int64[np.ndarray, " windows"], Int64[np.ndarray, " windows"]]:
        order = permutation(len(self._rows_of_window), *self._key, "windows", epoch)
        return order, np.cumsum(self._rows_of_window[order])

    def _make_rows(self, epoch: int, window: int) -> Int64[np.ndarray, " rows"]:
        return permutation(int(self._rows_of_window[window]), *self._key, "rows", epoch, window)
