"""What sources give, and the account of what was left out."""

import collections
from collections.abc import Iterator
from typing import NamedTuple, Protocol

_MAX_EXAMPLES = 5


class Document(NamedTuple):
    """A text and where it came from.

    Attributes:
        id: Path or key within its source; the same on every machine.
        text: Its text, without lone surrogates.
    """

    id: str
    text: str


class Dropped:
    """Counts what was left out, by reason, and names the first few of each."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Records one document or record left out."""
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MAX_EXAMPLES:
            examples.append(name)


class DocumentSource(Protocol):
    """Documents of one corpus."""

    def size_bytes(self) -> int:
        """About how much text there is, before anything is left out."""
        ...

    def documents(self, dropped: Dropped) -> Iterator[Document]:
        """Every document; what is left out is recorded in `dropped`.

        Raises:
            ValueError: If there is nothing to read; the message says what was looked for.
        """
        ...
