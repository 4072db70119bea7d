"""Rows cut from a stream of documents."""

import numpy as np
from jaxtyping import Int64, Integer

from llama_jax.data.batch import Batch


def count_rows(
    num_tokens: Int64[np.ndarray, " streams"], seq_len: int
) -> Int64[np.ndarray, " streams"]:
    """Rows of `seq_len` inputs that give every token of a stream but its first as a target."""
    return -(-(num_tokens - 1) // seq_len)


def pack_rows(
    stream: Integer[np.ndarray, " stream"],
    starts: Int64[np.ndarray, " documents"],
    num_tokens: int,
    rows: Int64[np.ndarray, " B"],
    seq_len: int,
) -> Batch:
    """Cuts `rows` of `seq_len` inputs out of a stream, each with the token that follows.

    Row `r` has the inputs `[r * seq_len, (r + 1) * seq_len)`: so every token that continues a
    document is a target of exactly one row, and first tokens of documents are targets of none.

    Args:
        stream: Documents end to end; it reaches one token past the last row wanted, padded.
        starts: Where each document starts in it, ascending; at least one.
        num_tokens: Tokens in it before the padding.
        rows: Which rows to cut.
        seq_len: `T`.
    """
    B, T = len(rows), seq_len
    step = stream.strides[0]
    windows = np.lib.stride_tricks.as_strided(
        stream, ((len(stream) - 1) // T, T + 1), (T * step, step), writeable=False
    )
    tokens = windows[rows]
    inputs, targets = tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)

    # A piece is what one row has of one document: the first of a row starts at column 0.
    first = rows * T
    lo = np.searchsorted(starts, first, side="right")
    hi = np.searchsorted(starts, first + T, side="left")
    num_pieces = hi - lo + 1
    row = np.repeat(np.arange(B), num_pieces)
    segment = np.arange(len(row)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces) + 1
    opens_row = segment == 1
    column = np.where(opens_row, 0, starts[np.repeat(lo, num_pieces) + segment - 2] - first[row])
    flat = (row * T + column).astype(np.int32)
    lengths = np.diff(flat, append=B * T)
    segments = np.repeat(segment.astype(np.int32), lengths).reshape(B, T)
    positions = (np.arange(B * T, dtype=np.int32) - np.repeat(flat, lengths)).reshape(B, T)

    loss_mask = np.ones((B, T), np.float32)
    begins_after = np.searchsorted(starts, first + T, side="right") > hi
    row, column = row[~opens_row], column[~opens_row]
    for array in (loss_mask, targets):
        array[row, column - 1] = 0
        array[begins_after, -1] = 0
    for r in np.flatnonzero(first + T >= num_tokens):
        valid = max(int(num_tokens - first[r]), 0)
        inputs[r, valid:] = segments[r, valid:] = positions[r, valid:] = 0
        targets[r, max(valid - 1, 0) :] = loss_mask[r, max(valid - 1, 0) :] = 0
    return Batch(inputs, targets, loss_mask, positions, segments)
