"""Tokens of documents by their numbers, wherever they are kept."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn, Protocol

import numpy as np
from jaxtyping import Integer

from llama_jax.data.batch import Batch


class DocumentReader(Protocol):
    """Documents by number, from 0.

    Attributes:
        name: Of their source.
        dtype: Of a token.
        num_tokens_of: Tokens of each document.
        text_bytes_of: UTF-8 bytes of each document's text.
    """

    name: str
    dtype: np.dtype
    num_tokens_of: Integer[np.ndarray, " documents"]
    text_bytes_of: Integer[np.ndarray, " documents"]

    def read_tokens(
        self, documents: Iterable[int]
    ) -> Iterator[tuple[int, Integer[np.ndarray, " tokens"]]]:
        """Each document with its tokens, in ascending order of documents."""
        ...

    def document_id(self, document: int) -> str:
        """The id under which the document was collected."""
        ...


def are_within(vocab_size: int, batch: Batch) -> bool:
    """Whether all inputs and targets are in [0, vocab_size)."""
    # The targets of a row but the last are inputs of it too. Read without a sign, a negative id is
    # above all others.
    ids = (np.asarray(each).view(np.uint32) for each in (batch.inputs, batch.targets[:, -1]))
    return all(int(each.max(initial=0)) < vocab_size for each in ids)


def refuse_outside(reader: DocumentReader, documents: Iterable[int], vocab_size: int) -> NoReturn:
    """Names the document that has an id outside the vocabulary.

    Args:
        reader: Of the documents.
        documents: Among which it is.
        vocab_size: Of the model.

    Raises:
        ValueError: Always.
    """
    for document, tokens in reader.read_tokens(documents):
        outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
        if len(outside):
            raise ValueError(
                f"data: document {reader.document_id(document)!r} of {reader.name} has token "
                f"{outside[0]}, outside model.vocab_size={vocab_size}; build the data anew."
            )
    raise AssertionError("an id came from no document")


class DocumentsInMemory:
    """A few documents; a `DocumentReader`.

    Args:
        name: Of their source.
        tokens: Of each document.
        text_bytes: Of each document's text.
        ids: Of each document; may be empty where nobody asks.
        dtype: In which tokens are kept.

    Attributes:
        num_bytes: Of their tokens, about.
    """

    def __init__(
        self,
        name: str,
        tokens: Sequence[Integer[np.ndarray, " _"]],
        text_bytes: Sequence[int],
        ids: Sequence[str],
        dtype: np.dtype,
    ):
        self.name, self.dtype = name, dtype
        self.num_tokens_of = np.array([len(each) for each in tokens], np.uint32)
        self.text_bytes_of = np.array(text_bytes, np.uint32)
        self.num_bytes = sum(each.nbytes for each in tokens)
        self._tokens, self._ids = tokens, ids

    def read_tokens(
        self, documents: Iterable[int]
    ) -> Iterator[tuple[int, Integer[np.ndarray, " tokens"]]]:
        """Each document with its tokens, in ascending order of documents."""
        for document in sorted(documents):
            yield document, self._tokens[document]

    def document_id(self, document: int) -> str:
        """The id under which the document was collected."""
        return self._ids[document]
