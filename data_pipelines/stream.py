"""A recipe's sources as training reads them without a build: file by file, filtered."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llama_jax.config import BuildConfig, Source

from .document import Document, Dropped, Fingerprinted, RawFile
from .plan import fingerprint
from .raw_stream import UnreadableError
from .sources import open_source
from .stages.filters import apply_filters, open_filters
from .tables import Hashed


def open_raw(config: BuildConfig) -> list["RawDocuments"]:
    """The sources of a recipe; lists their files and reads none.

    Raises:
        ValueError: If a source has no files.
    """
    return [RawDocuments(source, config.held_out_fraction) for source in config.sources]


class RawDocuments:
    """Documents of one source as its filters leave them.

    Args:
        source: Its config.
        held_out_fraction: Of its documents.
        files: Of the source, where they were listed before.

    Attributes:
        name: Of the source.
        raw_files: Its files, in order.
        files: Their names.
        sizes: About how many bytes of text each holds.
    """

    def __init__(
        self, source: Source, held_out_fraction: float, files: Sequence[RawFile] | None = None
    ):
        self.name = source.name
        self._source, self._held_out_fraction = open_source(source), held_out_fraction
        self._filters = open_filters(source.filters)
        self._within = open_filters(getattr(source, "file_filters", ()))
        self.raw_files = list(self._source.files() if files is None else files)
        self.files = [file.name for file in self.raw_files]
        self.sizes = [file.expected_text_bytes() for file in self.raw_files]
        self._dropped = Dropped()

    def fingerprints(self) -> Mapping[str, str]:
        """Of each file, as a build sees it change, and of what filters read beside them."""
        beside = {
            f"what {type(each).__name__} reads": each.fingerprint()
            for each in (*self._filters, *self._within)
            if isinstance(each, Fingerprinted)
        }
        return {file.name: fingerprint(file) for file in self.raw_files} | beside

    def documents(
        self, file: int, is_wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[str, str, bool]]:
        """Id, text, and whether it is held out, of each document that a file gives, in order.

        Args:
            file: Number of the file.
            is_wanted: Asked before each document that is read, whether filters keep it or not;
                documents end where it says no.

        Raises:
            OSError: If the file cannot be read.
        """
        read = self._source.read(self.raw_files[file], self._dropped)
        read = itertools.takewhile(lambda _: is_wanted(), read)
        try:
            for document in apply_filters(self._filters, read, self._dropped):
                hashed = _hashed(document)
                yield document.id, document.text, hashed.is_held_out(self._held_out_fraction)
        except UnreadableError as error:
            # Which ends a run as any other failure of a disk does.
            raise OSError(str(error)) from error

    def left_out(self) -> Sequence[str]:
        """Reasons for which something was left out so far, most frequent first."""
        return reasons(self._dropped)

    def account(self) -> dict[str, Any]:
        """The same, as `Dropped.merge` takes it."""
        return self._dropped.to_json()

    def forget_left_out(self) -> None:
        """Begins a new account, between two files."""
        self._dropped = Dropped()

    def expect(self, files: Sequence[int]) -> None:
        """Nothing is read before it is asked for."""

    def close(self) -> None:
        """Nothing is held open."""


def reasons(dropped: Dropped) -> list[str]:
    """Why something was left out, most frequent first, for people."""
    return [
        f"{count:,} {reason}, such as {dropped.examples[reason][0]}"
        for reason, count in dropped.counts.most_common()
    ]


def _hashed(document: Document) -> Hashed:
    return Hashed(hashlib.sha256(document.text.encode()).digest(), document)
