"""Which row of which source each sample is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.data.order import MIXTURE_BLOCK, Mixture, RowOrder, permutation


def test_permutations_depend_on_every_part_of_the_key_and_on_nothing_else():
    keys = [(0, "a", "rows", 0), (1, "a", "rows", 0), (0, "b", "rows", 0), (0, "a", "rows", 1)]
    orders = [tuple(permutation(100, *key).tolist()) for key in keys]
    assert len(set(orders)) == len(keys)
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] == tuple(permutation(100, *keys[0]).tolist())


def test_permutations_never_change_between_versions():
    # A change here reorders the data of every run that is under way.
    assert permutation(8, 0, "golden").tolist() == [7, 3, 2, 1, 5, 4, 6, 0]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1.0,), [8192]),
        ((3.0, 1.0), [6144, 2048]),
        ((1.0, 1e-9), [8191, 1]),
        ((0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02), [5488, 1229, 369, 369, 368, 205, 164]),
    ],
)
def test_mixture_proportions_are_exact_in_every_block(weights, counts):
    mixture = Mixture(weights, seed=0)
    for block in (0, 1, 977):
        samples = block * MIXTURE_BLOCK + np.arange(MIXTURE_BLOCK)
        sources, _ = mixture.locate(samples)
        assert np.bincount(sources, minlength=len(weights)).tolist() == counts


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    start=st.integers(0, 10**9),
    seed=st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_samples_of_a_source_are_counted_without_gaps_from_anywhere(weights, start, seed):
    mixture = Mixture(tuple(weights), seed)
    sources, ranks = mixture.locate(start + np.arange(2 * MIXTURE_BLOCK))
    before = mixture.drawn(start)
    assert before.sum() == start
    for source in range(len(weights)):
        drawn = ranks[sources == source]
        assert drawn.tolist() == list(range(before[source], before[source] + len(drawn)))


def test_sources_are_interleaved():
    sources, _ = Mixture((1.0, 1.0), seed=0).locate(np.arange(MIXTURE_BLOCK))
    assert abs(np.mean(sources[:1000]) - 0.5) < 0.1
    other, _ = Mixture((1.0, 1.0), seed=1).locate(np.arange(MIXTURE_BLOCK))
    assert (sources != other).mean() > 0.4


def test_every_epoch_has_each_row_once_and_another_order():
    rows_of_window = np.array([5, 1, 7, 3])
    order = RowOrder(rows_of_window, 0, "source")
    everything = sorted((w, r) for w, count in enumerate(rows_of_window) for r in range(count))
    epochs = []
    for epoch in range(3):
        place = order.locate(epoch * 16 + np.arange(16))
        assert (place.epoch == epoch).all()
        epochs.append(list(zip(place.window.tolist(), place.row.tolist(), strict=True)))
        assert sorted(epochs[-1]) == everything
    assert epochs[0] != epochs[1] != epochs[2]


def test_windows_and_the_rows_inside_them_are_shuffled_anew_each_epoch():
    order = RowOrder(np.full(12, 10), 0, "source")
    epochs = [order.locate(epoch * 120 + np.arange(120)) for epoch in range(2)]
    windows = [place.window.reshape(12, 10) for place in epochs]
    assert all((window == window[:, :1]).all() for window in windows)
    assert (windows[0] != windows[1]).any()
    turns = [(place.window[::10].tolist(), place.row.reshape(12, 10).tolist()) for place in epochs]
    rows = [dict(zip(*turn, strict=True)) for turn in turns]
    assert all(rows[0][window] != rows[1][window] for window in range(12))


def test_a_row_is_found_without_those_before_it():
    order = RowOrder(np.array([50, 20, 90]), 7, "source")
    together = order.locate(np.arange(500))
    for rank in (0, 159, 160, 499):
        alone = RowOrder(np.array([50, 20, 90]), 7, "source").locate(np.array([rank]))
        assert [field[0] for field in alone] == [field[rank] for field in together]
