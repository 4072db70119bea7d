"""Rows against a plain loop over tokens, and the promises that the loop rests on."""

import collections
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.data.packing import count_rows, pack_rows

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=12)


@pytest.fixture(scope="session")
def pack(numbered_documents):
    """Packs documents of given lengths; gives them and the batch."""
    return functools.partial(_pack, numbered_documents)


def _pack(numbered_documents, lengths, seq_len, rows=None):
    documents = numbered_documents(lengths)
    tokens = np.concatenate(documents).astype(np.uint16)
    num_rows = int(count_rows(np.array([len(tokens)]), seq_len)[0])
    stream = np.zeros(num_rows * seq_len + 1, np.uint16)
    stream[: len(tokens)] = tokens
    starts = np.cumsum([0, *lengths])[:-1]
    rows = np.arange(num_rows) if rows is None else rows
    return documents, pack_rows(stream, starts, len(tokens), rows, seq_len)


def rows_by_loop(documents, seq_len):
    """(input, target, mask, position, segment) of every token, one at a time."""
    tokens = [
        (token, document, i)
        for document, body in enumerate(documents)
        for i, token in enumerate(body.tolist())
    ]
    for at in range(0, len(tokens) - 1, seq_len):
        row, segment, position = [], 0, 0
        for column in range(seq_len):
            if at + column >= len(tokens):
                row.append((0, 0, 0.0, 0, 0))
                continue
            token, document, i = tokens[at + column]
            new = column == 0 or i == 0
            segment, position = segment + new, 0 if new else position + 1
            follows = at + column + 1 < len(tokens) and tokens[at + column + 1][1] == document
            target = tokens[at + column + 1][0] if follows else 0
            row.append((token, target, float(follows), position, segment))
        yield row


@given(lengths=LENGTHS, seq_len=st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_rows_are_those_of_a_plain_loop(pack, lengths, seq_len):
    documents, batch = pack(lengths, seq_len)
    expected = np.array(list(rows_by_loop(documents, seq_len)))
    for name, i in zip(batch._fields, range(5), strict=True):
        np.testing.assert_array_equal(getattr(batch, name), expected[..., i], err_msg=name)


@given(lengths=LENGTHS, seq_len=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_every_token_that_continues_a_document_is_scored_exactly_once(pack, lengths, seq_len):
    documents, batch = pack(lengths, seq_len)
    scored = collections.Counter(batch.targets[batch.loss_mask == 1].tolist())
    assert scored == collections.Counter(
        token for document in documents for token in document[1:].tolist()
    )


@given(lengths=LENGTHS, seq_len=st.integers(1, 50), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_row_does_not_depend_on_which_others_are_cut(pack, lengths, seq_len, data):
    _, everything = pack(lengths, seq_len)
    some = st.lists(st.integers(0, len(everything.inputs) - 1), min_size=1, max_size=6)
    rows = np.array(data.draw(some))
    _, chosen = pack(lengths, seq_len, rows)
    for field, whole in zip(chosen, everything, strict=True):
        np.testing.assert_array_equal(field, whole[rows])


def test_a_scored_token_and_its_target_share_a_document(pack):
    documents, batch = pack([2, 3, 17, 5, 2, 2, 9], 4)
    document_of = {int(t): i for i, d in enumerate(documents) for t in d[1:-1]}
    inner = (batch.loss_mask == 1) & (batch.targets > 2) & (batch.inputs > 2)
    assert inner.any()
    for token, target in zip(batch.inputs[inner], batch.targets[inner], strict=True):
        assert document_of[int(token)] == document_of[int(target)]
