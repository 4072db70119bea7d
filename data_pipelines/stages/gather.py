"""The documents of a range of hashes, from everywhere, by hash: each text once."""

import dataclasses
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..document import Dropped
from ..dropped_rows import account
from ..engine import Progress
from ..tables import DOCUMENTS, Hashed, write_documents
from .collect import Passage, read_buckets


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gather:
    """Which buckets of `collect`: from `first` until before `stop`."""

    first: int
    stop: int


def gather(
    config: Gather, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Merges a range of what `collect` wrote into `inputs`; of equal texts the first id stays."""
    kept = Passage(name="exact duplicates")
    pieces = (read_buckets(source, config.first, config.stop) for source in inputs)
    with account(folder) as dropped:
        documents = _each_text_once(heapq.merge(*pieces), dropped, progress)
        write_documents(folder / DOCUMENTS, kept.count_hashed(documents))
    return {"passages": [dataclasses.asdict(kept)], "dropped": dropped.to_json()}


def _each_text_once(
    documents: Iterable[Hashed], dropped: Dropped, progress: Progress
) -> Iterator[Hashed]:
    previous = b""
    for hashed in documents:
        progress(len(hashed.document.text.encode()))
        if hashed.digest == previous:
            dropped.add(
                "the same text as another document", hashed.document.id, hashed.document.text
            )
        else:
            previous = hashed.digest
            yield hashed
