"""Near duplicates and repeated paragraphs as tasks: what reads and writes which files.

`near_duplicates` and `paragraphs` say how they are found.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llama_jax.config import MinHash, ParagraphDedup

from ..dropped_rows import account
from ..engine import Progress
from ..tables import DOCUMENTS, Hashed, read_documents, write_documents
from . import minhash, near_duplicates, paragraphs
from .collect import Passage
from .spill import Resources

_SIGNATURES, _PAIRS, _SIZES = "signatures.parquet", "pairs.parquet", "sizes.parquet"
_HASHES, _FOUND = "hashes.parquet", "found.parquet"
# What a task that sorts or joins may use; more than that goes to its folder.
MEMORY_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """One band of signatures."""

    minhash: MinHash
    band: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """Of so many buckets; `cluster` has signatures of each as its first inputs."""

    num_buckets: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of several parts of the range of hashes."""

    part: int
    num_parts: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Remove:
    """A bucket, and what says that documents or paragraphs are unwanted."""

    bucket: int
    rule: MinHash | ParagraphDedup


def sign(
    config: MinHash, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Signatures of one bucket."""
    minhash.sign(inputs[0] / DOCUMENTS, folder / _SIGNATURES, config)
    return {}


def match(
    config: Match, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Pairs of alike documents in one band, of the signatures of all buckets."""
    with _resources(folder) as resources:
        signatures = [each / _SIGNATURES for each in inputs]
        near_duplicates.match(signatures, config.band, folder / _PAIRS, config.minhash, resources)
    return {}


def cluster(
    config: Join, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Groups of alike documents, of the signatures of all buckets and the pairs of all bands."""
    signed, matched = inputs[: config.num_buckets], inputs[config.num_buckets :]
    with _resources(folder) as resources:
        near_duplicates.cluster(
            [each / _SIGNATURES for each in signed],
            [each / _PAIRS for each in matched],
            [folder / _of_bucket(bucket) for bucket in range(config.num_buckets)],
            folder / _SIZES,
            resources,
        )
    sizes = pq.read_table(folder / _SIZES).to_pydict()
    return {"group_sizes": [list(pair) for pair in zip(*sizes.values(), strict=True)]}


def hash_paragraphs(
    config: ParagraphDedup, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Hashes of the lines of one bucket."""
    paragraphs.hash_paragraphs(read_documents(inputs[0] / DOCUMENTS), folder / _HASHES)
    return {}


def find_repeats(
    config: Part, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Lines that repeat an earlier one, of the hashes of all buckets in one part of their range."""
    with _resources(folder) as resources:
        paragraphs.find_repeats(
            [each / _HASHES for each in inputs],
            config.part,
            config.num_parts,
            folder / _FOUND,
            resources,
        )
    return {}


def sort_repeats(
    config: Join, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Those lines by bucket, of what was found in all parts."""
    with _resources(folder) as resources:
        paragraphs.sort_repeats(
            [each / _FOUND for each in inputs],
            [folder / _of_bucket(bucket) for bucket in range(config.num_buckets)],
            resources,
        )
    return {}


def remove(
    config: Remove, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """A bucket without what is unwanted; `inputs` are the bucket, and what says what that is."""
    bucket, decided = inputs
    documents = _told(read_documents(bucket / DOCUMENTS), progress)
    unwanted = decided / _of_bucket(config.bucket)
    with account(folder) as dropped:
        if isinstance(config.rule, MinHash):
            kept = Passage(name="near duplicates")
            documents = near_duplicates.remove(documents, unwanted, dropped)
        else:
            kept = Passage(name="paragraphs")
            documents = paragraphs.remove_repeats(documents, unwanted, config.rule, dropped)
        write_documents(folder / DOCUMENTS, kept.count_hashed(documents))
    return {"passages": [dataclasses.asdict(kept)], "dropped": dropped.to_json()}


def _of_bucket(bucket: int) -> str:
    return f"{bucket:05d}.parquet"


def _told(documents: Iterable[Hashed], progress: Progress) -> Iterator[Hashed]:
    for hashed in documents:
        progress(len(hashed.document.text.encode()))
        yield hashed


@contextlib.contextmanager
def _resources(folder: Path) -> Iterator[Resources]:
    """Room beside what a task writes, gone when it has written."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield Resources(scratch=Path(scratch), memory_bytes=MEMORY_BYTES)
