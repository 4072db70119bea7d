"""Documents in groups that are worked on together."""

from collections.abc import Iterable, Iterator

from ..document import Document

_CHARACTERS = 1 << 20


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Groups of a million characters or a little more; a document is never split."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
