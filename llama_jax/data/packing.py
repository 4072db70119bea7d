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
        starts: Where each document starts in it, ascending.
        num_tokens: Tokens in it before the padding.
        rows: Which rows to cut.
        seq_len: `T`.
    """
    B, T = len(rows), seq_len
    step = stream.strides[0]
    windows = np.lib.stride_tricks.as_strided(
        stream, ((len(stream) - 1) // T, T + 1), (T * step, step), writeable=False
    )
    tokens = windows[rows].astype(np.int32)
    first = rows * T
    lo = np.searchsorted(starts, first, side="right")
    hi = np.searchsorted(starts, first + T, side="left")
    counts = hi - lo
    row = np.repeat(np.arange(B), counts)
    into_starts = np.arange(counts.sum()) + np.repeat(lo - np.cumsum(counts) + counts, counts)
    column = starts[into_starts] - first[row]

    segments = np.zeros((B, T), np.int32)
    segments[:, 0] = 1
    segments[row, column] = 1
    np.cumsum(segments, axis=1, out=segments)
    positions = np.zeros((B, T), np.int32)
    positions[row, column] = column
    np.maximum.accumulate(positions, axis=1, out=positions)
    np.subtract(np.arange(T, dtype=np.int32), positions, out=positions)
    loss_mask = np.ones((B, T), np.float32)
    loss_mask[row, column - 1] = 0
    # The target of the last column may be the first token of a document too.
    begins_after = np.searchsorted(starts, first + T, side="right") > hi
    loss_mask[begins_after, -1] = 0

    inputs, targets = tokens[:, :-1], tokens[:, 1:].copy()
    targets[loss_mask == 0] = 0
    for r in np.flatnonzero(first + T >= num_tokens):
        valid = max(int(num_tokens - first[r]), 0)
        inputs[r, valid:] = segments[r, valid:] = positions[r, valid:] = 0
        targets[r, max(valid - 1, 0) :] = loss_mask[r, max(valid - 1, 0) :] = 0
    return Batch(np.ascontiguousarray(inputs), targets, loss_mask, positions, segments)
