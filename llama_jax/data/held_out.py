"""Held-out documents in order, once, with the bytes of text that their loss is divided by."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llama_jax.data.batch import Batch
from llama_jax.data.dataset import open_manifests
from llama_jax.data.documents import DocumentReader, are_within, refuse_outside
from llama_jax.data.packing import count_rows, pack_rows
from llama_jax.data.shards import SplitReader


class HeldOut:
    """Batches of whole documents: each token that continues one is scored exactly once.

    No document is cut off by the limit on rows, so `text_bytes` is exactly the text that the
    scored tokens stand for (the end-of-document token is scored too, and stands for none).
    Summed loss in nats / ln 2 / `text_bytes` is bits per byte.

    Attributes:
        num_batches: Batches that iteration gives.
        num_documents: Documents in them.
        text_bytes: UTF-8 bytes of those documents.
        scored_tokens: Sum of the loss mask over all rows of all processes.
    """

    def __init__(
        self,
        reader: DocumentReader,
        *,
        seq_len: int,
        batch_size: int,
        vocab_size: int,
        max_rows: int,
        rows: range,
    ):
        self._reader, self._seq_len, self._batch_size = reader, seq_len, batch_size
        self._vocab_size = vocab_size
        self._rows = np.asarray(rows, np.int64)
        lengths = np.asarray(reader.num_tokens_of, np.int64)
        chosen = np.arange(len(lengths))
        if max_rows:
            room = max_rows * seq_len + 1
            chosen = chosen[lengths <= room]
            chosen = chosen[np.cumsum(lengths[chosen]) <= room]
        if not len(chosen):
            raise ValueError(
                f"evaluate.num_batches: no held-out document of {reader.name!r} fits into its "
                f"{max_rows} rows of data.seq_len={seq_len}: the shortest has "
                f"{lengths.min():,} tokens; score more batches."
            )
        self._documents = chosen
        self._ends = np.cumsum(lengths[chosen])
        self._starts = self._ends - lengths[chosen]
        self._num_rows = int(count_rows(self._ends[-1:], seq_len)[0])
        self.num_batches = -(-self._num_rows // batch_size)
        self.num_documents = len(chosen)
        self.text_bytes = int(np.asarray(reader.text_bytes_of, np.int64)[chosen].sum())
        self.scored_tokens = int(self._ends[-1]) - len(chosen)

    def __iter__(self) -> Iterator[Batch]:
        for batch in range(self.num_batches):
            yield self._batch(batch)

    def _batch(self, batch: int) -> Batch:
        """Rows of one batch; those after the last document are padding."""
        T, rows = self._seq_len, batch * self._batch_size + self._rows
        low, high = int(rows.min()) * T, (int(rows.max()) + 1) * T + 1
        stream = np.zeros((int(np.ptp(rows)) + 1) * T + 1, self._reader.dtype)
        # Rows of padding alone come after the last document.
        lo = min(int(np.searchsorted(self._ends, low, side="right")), len(self._ends) - 1)
        hi = int(np.searchsorted(self._starts, high, side="left"))
        place_of = {int(self._documents[i]): i for i in range(lo, hi)}
        for document, tokens in self._reader.read_tokens(place_of):
            start = int(self._starts[place_of[document]]) - low
            cut = tokens[max(-start, 0) : max(len(stream) - start, 0)]
            stream[max(start, 0) : max(start, 0) + len(cut)] = cut
        starts = self._starts[lo:hi] - low
        packed = pack_rows(stream, starts, int(self._ends[-1]) - low, rows - rows.min(), T)
        if not are_within(self._vocab_size, packed):
            refuse_outside(self._reader, place_of, self._vocab_size)
        return packed


def held_out_batches(
    directory: str,
    source: str,
    *,
    seq_len: int,
    batch_size: int,
    vocab_size: int,
    max_rows: int = 0,
    rows: range | None = None,
) -> HeldOut | None:
    """The held-out documents of one source, or None where it has none.

    Args:
        directory: Folder that `llama-jax data build` wrote.
        source: Name of the source.
        seq_len: Tokens of a row.
        batch_size: Rows of a batch, over all processes.
        vocab_size: Of the model; every token must be below it.
        max_rows: Documents are taken in order while they fit into so many rows; those too long for
            all of them together are passed over. 0 takes every document.
        rows: Which rows of each batch this process reads; all of them by default.

    Raises:
        ValueError: As `open_dataset`, or if no document fits.
    """
    manifests = open_manifests(directory, vocab_size=vocab_size)
    if source not in manifests:
        raise ValueError(
            f"{source!r} is no source of {directory}; there are: {', '.join(sorted(manifests))}."
        )
    manifest = manifests[source]
    if not manifest.splits["heldout"].num_documents:
        return None
    return HeldOut(
        SplitReader(Path(directory) / source, manifest, "heldout"),
        seq_len=seq_len,
        batch_size=batch_size,
        vocab_size=vocab_size,
        max_rows=max_rows,
        rows=range(batch_size) if rows is None else rows,
    )
