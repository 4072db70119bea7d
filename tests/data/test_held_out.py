"""Held-out documents: in order, once, with exactly the bytes that their tokens stand for."""

import collections

import numpy as np
import pytest

from llama_jax.data.batch import Batch
from llama_jax.data.held_out import held_out_batches

LENGTHS = [9, 40, 2, 33, 17, 100, 5, 5, 61]
T, B = 16, 3


@pytest.fixture(scope="module")
def documents(numbered_documents):
    return numbered_documents(LENGTHS)


@pytest.fixture
def directory(write_dataset, documents):
    return write_dataset({"books": documents, "none": documents[:2]}, {"books": documents})


def held_out(directory, **options):
    return held_out_batches(
        str(directory), "books", seq_len=T, batch_size=B, vocab_size=50_000, **options
    )


def scored_tokens(batches):
    return collections.Counter(
        token for batch in batches for token in batch.targets[batch.loss_mask == 1].tolist()
    )


@pytest.mark.parametrize("max_batches", [0, 1, 2, 3, 5, 100])
def test_scored_tokens_are_those_of_the_documents_whose_bytes_are_counted(
    directory, documents, max_batches
):
    found = held_out(directory, max_rows=max_batches * B)
    batches = list(found)
    assert len(batches) == found.num_batches <= (max_batches or 100)
    whole = [body for body in documents if len(body) <= max_batches * B * T + 1 or not max_batches]
    chosen = whole[: found.num_documents]
    assert scored_tokens(batches) == collections.Counter(
        token for body in chosen for token in body[1:].tolist()
    )
    assert found.text_bytes == sum(3 * len(body) for body in chosen)
    assert found.scored_tokens == sum(batch.loss_mask.sum() for batch in batches)
    if found.num_documents < len(whole):
        tokens = sum(len(body) for body in whole[: found.num_documents + 1])
        assert tokens - 1 > max_batches * B * T


def test_documents_come_in_order(directory, documents):
    rows = np.concatenate([batch.inputs for batch in held_out(directory)])
    tokens = np.concatenate(documents)
    np.testing.assert_array_equal(rows.ravel()[: len(tokens)], tokens)
    assert not rows.ravel()[len(tokens) :].any()


@pytest.mark.parametrize("num_readers", [3])
def test_readers_share_the_rows_of_a_batch(directory, num_readers):
    readers = [held_out(directory, rows=range(r, r + 1)) for r in range(num_readers)]
    for whole, *parts in zip(held_out(directory), *readers, strict=True):
        joined = Batch(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
        for field, expected in zip(joined, whole, strict=True):
            np.testing.assert_array_equal(field, expected)


def test_the_last_batch_is_padded_with_rows_that_count_for_nothing(directory):
    *_, last = held_out(directory)
    padding = last.segments == 0
    assert padding[-1].any()
    for field in last:
        assert not field[padding].any()


def test_a_source_without_held_out_documents_gives_none(directory):
    found = held_out_batches(
        str(directory), "none", seq_len=T, batch_size=B, vocab_size=50_000, max_rows=B
    )
    assert found is None


def test_too_few_batches_for_any_document_are_refused(write_dataset, documents):
    directory = write_dataset({"books": documents}, {"books": [documents[5]]})
    with pytest.raises(
        ValueError, match=r"evaluate\.num_batches: no held-out document of .* 3 rows"
    ):
        held_out(directory, max_rows=B)


def test_an_unknown_source_is_refused(directory):
    with pytest.raises(ValueError, match=r"'code' is no source of .*; there are: books, none"):
        held_out_batches(str(directory), "code", seq_len=T, batch_size=B, vocab_size=50_000)
