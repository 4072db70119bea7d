"""Documents to tokens, many at a time."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from llama_jax.data.tokenizer import Tokenizer

from .shuffle import Hashed

_BATCH_BYTES = 8 << 20


class Tokenized(NamedTuple):
    """A document's tokens, from its beginning token to its end token.

    Attributes:
        hashed: The document.
        tokens: Its ids.
        text_bytes: UTF-8 bytes of its text.
    """

    hashed: Hashed
    tokens: np.ndarray
    text_bytes: int


def tokenize(
    documents: Iterable[Hashed], tokenizer: Tokenizer, *, num_threads: int
) -> Iterator[Tokenized]:
    """Encodes documents in batches of about 8 MB; their order is kept."""
    batch: list[Hashed] = []
    size = 0
    for hashed in documents:
        batch.append(hashed)
        size += len(hashed.document.text)
        if size >= _BATCH_BYTES:
            yield from _encode(batch, tokenizer, num_threads)
            batch, size = [], 0
    yield from _encode(batch, tokenizer, num_threads)


def _encode(batch: list[Hashed], tokenizer: Tokenizer, num_threads: int) -> Iterator[Tokenized]:
    texts = [hashed.document.text for hashed in batch]
    encoded = tokenizer.encode_batch(texts, bos=True, eos=True, num_threads=num_threads)
    for hashed, text, tokens in zip(batch, texts, encoded, strict=True):
        yield Tokenized(hashed, tokens, len(text.encode()))
