"""What sources read and give, and the account of what was left out."""

import collections
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .raw_stream import open_raw

_MAX_EXAMPLES = 5
_EXCERPT_CHARS = 300
_COMPRESSED = (".gz", ".bz2", ".zst", ".parquet", ".tar", ".wacz", ".7z")
_COMPRESSION = 4
_BUFFER = 1 << 17


class RawFile(NamedTuple):
    """A file of a corpus as it was published.

    Attributes:
        name: Path below the source's folder, with `/`; the same on every machine.
        url: Local path, or what fsspec opens: "s3://bucket/key".
        size_bytes: As it lies there.
        unread: Why its source counts it and does not read it; empty where it does.
        start: Of a piece of a file the first byte at which its records may begin.
        stop: The byte behind the last one at which they may; 0 for all of a file.
    """

    name: str
    url: str
    size_bytes: int
    unread: str = ""
    start: int = 0
    stop: int = 0

    @property
    def num_bytes(self) -> int:
        """Of the file, or of the piece."""
        return (self.stop or self.size_bytes) - self.start

    @property
    def label(self) -> str:
        """For people: its name, and which bytes of it."""
        return f"{self.name} (bytes {self.start} to {self.stop})" if self.stop else self.name

    def open(self) -> io.BufferedReader:
        """Its bytes, seekable; see `open_raw`."""
        return open_raw(self.url, self._stream)

    def _stream(self) -> Any:
        if "://" not in self.url:
            return Path(self.url).open("rb", buffering=0)
        import fsspec

        system, path = fsspec.core.url_to_fs(self.url)
        return system.open(path, "rb")

    def expected_text_bytes(self) -> int:
        """About how much text is in it: compressed formats fourfold."""
        if self.unread:
            return 0
        return self.num_bytes * (_COMPRESSION if self.name.lower().endswith(_COMPRESSED) else 1)


class WatchedFile(RawFile):
    """A raw file that tells how many of its bytes have been read; of a piece those of the piece."""

    _told: Callable[[int], None]

    @classmethod
    def of(cls, file: RawFile, told: Callable[[int], None]) -> "WatchedFile":
        """The same file; `told` is given the bytes read since."""
        watched = cls._make(file)
        watched._told = told
        return watched

    def open(self) -> io.BufferedReader:
        """See `RawFile.open`."""
        watched = _Watched(super().open(), self.start, self.start + self.num_bytes, self._told)
        return io.BufferedReader(watched, _BUFFER)


class _Watched(io.RawIOBase):
    """Reads from a stream and tells how far it has come; what is read again is told once."""

    def __init__(
        self, stream: io.BufferedReader, start: int, stop: int, told: Callable[[int], None]
    ):
        self._stream, self._furthest, self._stop, self._told = stream, start, stop, told

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        if (at := min(self._stream.tell(), self._stop)) > self._furthest:
            self._told(at - self._furthest)
            self._furthest = at
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()


class Document(NamedTuple):
    """A text and where it came from.

    Attributes:
        id: Where the raw record is: file below the source's folder, then what finds the record in
            it, such as its number or byte offset; the same on every machine.
        text: Its text, without lone surrogates.
        url: Where it is to be found in public; empty where that is not known.
        language: ISO 639-1 code of its language; empty where nobody has looked.
        metadata: More about it, such as ("licence", "mit").
    """

    id: str
    text: str
    url: str = ""
    language: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


class LeftOut(NamedTuple):
    """One document or record that was left out.

    Attributes:
        id: Of the document, or where the record is.
        rule: Why, such as "gopher_quality: mean word length".
        value: What it has of that which the rule looks at; empty where there is no more to say.
        allowed: What the rule allows, such as "at most 10"; empty where that is not a number.
        text_bytes: UTF-8 bytes of its text; 0 of a record without one.
    """

    id: str
    rule: str
    value: str
    allowed: str
    text_bytes: int


class Dropped:
    """Counts what was left out, by reason, and names the first few of each.

    Args:
        tell: Is told of every one of them.

    Attributes:
        counts: Left out, by reason.
        examples: Names of the first few, by reason.
        excerpts: The beginnings of their texts; empty where there was none.
        text_bytes: UTF-8 bytes of the texts left out, by reason; of a record without one, none.
        num_bad: How many were damaged, rather than unwanted.
        bad: The first few of them, with their reasons.
        notes: Tables of what filters found or changed; rows and their counts.
    """

    def __init__(self, tell: Callable[[LeftOut], None] | None = None) -> None:
        self._tell = tell
        self.counts: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, list[str]] = {}
        self.excerpts: dict[str, list[str]] = {}
        self.text_bytes: collections.Counter[str] = collections.Counter()
        self.num_bad = 0
        self.bad: list[str] = []
        self.notes: dict[str, collections.Counter[str]] = {}

    def add(
        self, reason: str, name: str, text: str = "", *, value: str = "", allowed: str = ""
    ) -> None:
        """Records one document or record left out; see `LeftOut`."""
        self.counts[reason] += 1
        text_bytes = len(text.encode("utf-8", "replace"))
        self.text_bytes[reason] += text_bytes
        if self._tell is not None:
            self._tell(LeftOut(name, reason, value, allowed, text_bytes))
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MAX_EXAMPLES:
            shown = ", ".join(filter(None, (value, allowed)))
            examples.append(f"{name} ({shown})" if shown else name)
            self.excerpts.setdefault(reason, []).append(text[:_EXCERPT_CHARS])

    def add_bad(self, reason: str, name: str) -> None:
        """Records damage: what should have been readable and was not."""
        self.add(reason, name)
        self.num_bad += 1
        if len(self.bad) < _MAX_EXAMPLES:
            self.bad.append(f"{name} ({reason})")

    def note(self, table: str, row: str, number: int = 1) -> None:
        """Adds to a row of a table, such as "language", "fr"; there must be few tables and rows."""
        self.notes.setdefault(table, collections.Counter())[row] += number

    def to_json(self) -> dict[str, Any]:
        """As JSON that `merge` takes."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "examples": dict(sorted(self.examples.items())),
            "excerpts": dict(sorted(self.excerpts.items())),
            "text_bytes": dict(sorted(self.text_bytes.items())),
            "num_bad": self.num_bad,
            "bad": self.bad,
            "notes": {name: dict(sorted(rows.items())) for name, rows in self.notes.items()},
        }

    def merge(self, other: dict[str, Any]) -> None:
        """Adds another account, of `to_json`."""
        self.counts.update(other["counts"])
        self.text_bytes.update(other["text_bytes"])
        self.num_bad += other["num_bad"]
        self.bad += other["bad"][: _MAX_EXAMPLES - len(self.bad)]
        for name, rows in other["notes"].items():
            self.notes.setdefault(name, collections.Counter()).update(rows)
        for reason, names in other["examples"].items():
            ours = self.examples.setdefault(reason, [])
            room = _MAX_EXAMPLES - len(ours)
            ours += names[:room]
            self.excerpts.setdefault(reason, []).extend(other["excerpts"][reason][:room])


class DocumentSource(Protocol):
    """Documents of one corpus."""

    def files(self) -> Iterator[RawFile]:
        """Every raw file, in order of name.

        Raises:
            ValueError: If there is nothing to read; the message says what was looked for.
        """
        ...

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Documents of one file, in order; what is left out is recorded in `dropped`.

        Damage is recorded, not raised. What came before it is given.

        Raises:
            UnreadableError: If the file cannot be read, which says nothing of its contents.
        """
        ...


@runtime_checkable
class Divisible(Protocol):
    """A source that reads pieces of some files; see `RawFile.start`."""

    def can_cut(self, file: RawFile) -> bool:
        """Whether it does of this one: wherever it is cut, the same documents come, in order."""
        ...


class DocumentFilter(Protocol):
    """Keeps some documents, and may edit them."""

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """Documents that stay, in order; every other one is recorded in `dropped`."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """What reads files of its own, beside the documents."""

    def fingerprint(self) -> str:
        """A hash of those files' contents."""
        ...
