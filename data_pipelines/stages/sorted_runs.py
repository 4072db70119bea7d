"""Documents in order of their digests, sorted on disk: few files and little memory at a time."""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from ..tables import SCHEMA, Hashed, from_batch, to_batches

_RUN_BYTES = 16 << 20
# Each run that is merged has an open file and a batch in memory.
_FAN_IN = 64
_BATCH_BYTES = 128 << 10


def by_digest(documents: Iterable[Hashed], scratch: Path) -> Iterator[Hashed]:
    """Documents by digest and id; memory holds a run of them, however many there are.

    Args:
        documents: In any order.
        scratch: An empty folder; runs lie there, and are deleted once they are merged.
    """
    runs: list[Path] = []
    held: list[Hashed] = []
    size = 0
    for hashed in documents:
        held.append(hashed)
        size += len(hashed.document.text)
        if size >= _RUN_BYTES:
            runs.append(_write_run(sorted(held), scratch / f"0-{len(runs)}.arrow"))
            held, size = [], 0
    if not runs:
        yield from sorted(held)
        return
    if held:
        runs.append(_write_run(sorted(held), scratch / f"0-{len(runs)}.arrow"))
        held = []
    level = 0
    while len(runs) > _FAN_IN:
        level += 1
        groups = (runs[start : start + _FAN_IN] for start in range(0, len(runs), _FAN_IN))
        runs = [
            _write_run(_merged(group), scratch / f"{level}-{number}.arrow")
            for number, group in enumerate(groups)
        ]
    yield from _merged(runs)


def _merged(runs: list[Path]) -> Iterator[Hashed]:
    yield from heapq.merge(*map(_read_run, runs))
    for run in runs:
        run.unlink()


def _write_run(documents: Iterable[Hashed], path: Path) -> Path:
    with pa.ipc.new_stream(path, SCHEMA) as writer:
        for batch in to_batches(documents, _BATCH_BYTES):
            writer.write_batch(batch)
    return path


def _read_run(path: Path) -> Iterator[Hashed]:
    # Given a path it maps the file, and what was read counts as memory until the end.
    with path.open("rb") as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            yield from from_batch(batch)
