"""Documents into the order of their hash: shuffled, without duplicates, the same every time.

They pass through buckets on disk, so memory holds one bucket at a time.
"""

import hashlib
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ..document import Document, Dropped

_HEADER = struct.Struct("<32sII")
_BUCKET_BYTES = 128 << 20


class Hashed(NamedTuple):
    """A document and the SHA-256 of its text."""

    digest: bytes
    document: Document

    def is_held_out(self, fraction: float) -> bool:
        """Whether it is among the share of texts, by hash, that training never sees."""
        # Other bytes than those that order documents: a cut of the order must keep both kinds.
        return int.from_bytes(self.digest[8:16]) < fraction * 2**64


class Shuffle:
    """Buckets of documents in a folder.

    Args:
        folder: Where buckets are written; made here.
        size_bytes: About how much text will come.

    Attributes:
        num_documents: Written so far.
        num_bytes: Of their texts.
    """

    def __init__(self, folder: Path, *, size_bytes: int):
        folder.mkdir(parents=True)
        self._folder = folder
        self.num_documents = self.num_bytes = 0
        count = min(max(size_bytes // _BUCKET_BYTES, 16), 512)
        self._paths = [folder / f"{index:03d}.bucket" for index in range(count)]

    def write(self, documents: Iterable[Document]) -> Iterator[int]:
        """Puts each document into its bucket; gives its bytes of text."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in self._paths]
            for document in documents:
                text, name = document.text.encode(), document.id.encode()
                digest = hashlib.sha256(text).digest()
                bucket = int.from_bytes(digest[:4]) * len(files) >> 32
                files[bucket].write(_HEADER.pack(digest, len(name), len(text)) + name + text)
                self.num_documents += 1
                self.num_bytes += len(text)
                yield len(text)

    def read(self, *, max_bytes: int, dropped: Dropped | None = None) -> Iterator[Hashed]:
        """Documents by hash, each text once, until they hold `max_bytes` of text.

        Repeated texts are recorded in `dropped`.
        """
        taken = 0
        for path in self._paths:
            previous = b""
            for digest, name, text in _sorted_bucket(path):
                if digest == previous:
                    if dropped is not None:
                        dropped.add("the same text as another document", name.decode())
                    continue
                previous = digest
                taken += len(text)
                if taken > max_bytes:
                    return
                yield Hashed(digest, Document(name.decode(), text.decode()))

    def remove(self) -> None:
        """Deletes the buckets."""
        shutil.rmtree(self._folder)


def _sorted_bucket(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    records, data, at = [], path.read_bytes(), 0
    while at < len(data):
        digest, name_size, text_size = _HEADER.unpack_from(data, at)
        name_end = at + _HEADER.size + name_size
        at = name_end + text_size
        records.append((digest, data[name_end - name_size : name_end], data[name_end:at]))
    records.sort(key=lambda record: record[:2])
    return records
