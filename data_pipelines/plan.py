"""How a source's work is cut: into parts of raw files, buckets of hashes, groups of buckets.

Nothing here depends on the number of workers: whoever builds gets the same bytes.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .document import Divisible, DocumentSource, RawFile
from .engine import Done
from .sources.repository_checkout import checkout_stamp

# Few tasks cannot be shared evenly: of a small corpus they are small, and 64 the usual number.
_MIN_PART_BYTES, _PART_BYTES = 4 << 20, 8 << 20
_MAX_PARTS = 4096
_MIN_BUCKET_BYTES, _MAX_BUCKET_BYTES = 4 << 20, 512 << 20
_USUAL = 64
# More would make the pieces of a bucket, one of each part, too small to compress well.
_FINE = 4


def parts(source: DocumentSource, files: Sequence[RawFile]) -> Iterator[tuple[RawFile, ...]]:
    """Files side by side, each part of about as many bytes; large ones are cut if they can be."""
    # A shuffle reads every bucket of every part: of a large corpus, parts are large.
    whole = sum(file.expected_text_bytes() for file in files)
    most = max(min(max(whole // _USUAL, _MIN_PART_BYTES), _PART_BYTES), whole // _MAX_PARTS)
    part: list[RawFile] = []
    size = 0
    for piece in itertools.chain.from_iterable(_pieces(source, file, most) for file in files):
        if part and size + piece.expected_text_bytes() > most:
            yield tuple(part)
            part, size = [], 0
        part.append(piece)
        size += piece.expected_text_bytes()
    if part:
        yield tuple(part)


def _pieces(source: DocumentSource, file: RawFile, most: int) -> Iterator[RawFile]:
    count = -(-file.expected_text_bytes() // most)
    if count < 2 or not (isinstance(source, Divisible) and source.can_cut(file)):
        yield file
        return
    ends = [file.size_bytes * number // count for number in range(count + 1)]
    for start, stop in itertools.pairwise(ends):
        yield file._replace(start=start, stop=stop)


def num_fine_buckets(text_bytes: int) -> int:
    """Into how many buckets so much text is cut first: those that are held in memory."""
    return _FINE * num_buckets(text_bytes)


def num_buckets(text_bytes: int) -> int:
    """Into how many buckets so much text goes; a bucket becomes a shard."""
    bucket_bytes = min(max(text_bytes // _USUAL, _MIN_BUCKET_BYTES), _MAX_BUCKET_BYTES)
    return max(-(-text_bytes // bucket_bytes), 1)


def ranges(fine: int, coarse: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the fine buckets in each coarse one; there are no more than `fine`."""
    coarse = min(fine, coarse)
    for number in range(coarse):
        yield fine * number // coarse, fine * (number + 1) // coarse


def groups(buckets: Sequence[Path], *, share: float) -> Iterator[tuple[Path, ...]]:
    """Buckets side by side, so many that a share of them is about one bucket's worth."""
    size = min(round(1 / share), len(buckets)) if share else len(buckets)
    for start in range(0, len(buckets), size):
        yield tuple(buckets[start : start + size])


def within(sizes: Iterable[int], most: int) -> Iterator[int]:
    """What is taken from each, when the first ones may take `most` together."""
    for size in sizes:
        yield min(size, most)
        most -= min(size, most)


def text_bytes(buckets: Iterable[Done]) -> int:
    """UTF-8 bytes of the documents that a step has left in its buckets."""
    return sum(bucket.result["passages"][-1]["text_bytes"] for bucket in buckets)


def fingerprint(file: RawFile) -> str:
    """What changes when a raw file does: its size and when it was written, or its ETag.

    Contents are not read: a corpus takes hours to read, and this is asked before each build.
    """
    if "://" not in file.url:
        path = Path(file.url)
        stamp = checkout_stamp(path) if path.is_dir() else str(path.stat().st_mtime_ns)
    else:
        import fsspec

        system, path = fsspec.core.url_to_fs(file.url)
        stamp = str(system.ukey(path))
    text = "\0".join((file.name, str(file.size_bytes), stamp))
    return hashlib.sha256(text.encode()).hexdigest()
