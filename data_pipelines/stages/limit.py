"""The first documents by hash, until they hold so many bytes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..document import Dropped
from ..dropped_rows import account
from ..engine import Progress
from ..tables import DOCUMENTS, Hashed, read_documents, write_documents
from .collect import Passage


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """UTF-8 bytes of text that are taken from one bucket at most."""

    max_bytes: int


def limit(
    config: Limit, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Copies the documents of a bucket up to the first that would exceed the limit."""
    kept = Passage(name="limit")

    def documents(dropped: Dropped) -> Iterator[Hashed]:
        is_full = False
        for hashed in read_documents(inputs[0] / DOCUMENTS):
            size = len(hashed.document.text.encode())
            progress(size)
            is_full = is_full or kept.text_bytes + size > config.max_bytes
            if is_full:
                dropped.add("beyond max_bytes", hashed.document.id, hashed.document.text)
            else:
                kept.add(hashed.document)
                yield hashed

    with account(folder) as dropped:
        write_documents(folder / DOCUMENTS, documents(dropped))
    return {"passages": [dataclasses.asdict(kept)], "dropped": dropped.to_json()}
