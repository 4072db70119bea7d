"""The shard format: one folder a source, readable by TensorFlow Datasets and by position.

A record is a `tf.train.Example` of two byte strings, the document's id and its tokens; in sorted
order the tokens come last, so that they are the record's tail and need no parsing. Next to the
shards lie indices of fixed-width numbers that are mapped, not loaded.
"""

import bisect
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt32

from llama_jax.remote.dataset import fetch_shard, is_left_in_bucket

BUILD = "build.json"
MANIFEST = "source.json"
FORMAT = 1
WINDOW_DOCUMENTS = 8192
WINDOW_TOKENS = 1 << 24
# Records stand alone for random access, and uncompressed: a 16-bit token has little left to save.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Readahead and worker threads cost more than a document takes to read.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def token_dtype(vocab_size: int) -> np.dtype:
    """What a token is stored as."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


def shard_name(source: str, split: str, index: int, count: int) -> str:
    """A shard's file name, as TensorFlow Datasets wants it."""
    return f"{source}-{split}.array_record-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file of documents.

    Attributes:
        file: Its name.
        num_bytes: Its size.
        num_documents: Records in it.
        sha256: Of its records, one after the other; empty if an older version wrote it.
    """

    file: str
    num_bytes: int
    num_documents: int
    sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Documents that are for training, or held out.

    Attributes:
        shards: In order of their documents.
        num_documents: Records in all.
        num_tokens: Of all documents, special tokens included.
        text_bytes: UTF-8 bytes of all documents.
    """

    shards: tuple[Shard, ...]
    num_documents: int
    num_tokens: int
    text_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a source's folder holds.

    Attributes:
        name: Of the source.
        tokenizer_sha256: Of the tokenizer's file.
        vocab_size: Of the tokenizer; every token is below it.
        splits: By name.
    """

    name: str
    tokenizer_sha256: str
    vocab_size: int
    splits: dict[str, Split]

    def to_json(self) -> str:
        """As JSON that `read_manifest` reads."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self), indent=2) + "\n"

    @property
    def sha256(self) -> str:
        """Of what tells its documents and their order from others, and of no more than that."""
        told = {
            name: [split.num_documents, split.num_tokens, split.text_bytes]
            + [[shard.num_bytes, shard.num_documents, shard.sha256] for shard in split.shards]
            for name, split in self.splits.items()
        }
        content = json.dumps([self.tokenizer_sha256, self.vocab_size, told], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def split_to_json(split: Split) -> dict[str, Any]:
    """As JSON that `split_from_json` reads."""
    return dataclasses.asdict(split)


def split_from_json(data: dict[str, Any]) -> Split:
    """Reads what `split_to_json` gives."""
    shards = tuple(Shard(**shard) for shard in data["shards"])
    return Split(**{**data, "shards": shards})


def read_manifest(folder: Path) -> Manifest:
    """Reads a source's manifest and checks that each shard is there, and whole.

    Raises:
        ValueError: If the folder holds no shards, or a shard is missing or cut short.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"data: {folder} lacks {MANIFEST}; write it with `llama-jax data build`.")
    data = _read_json(path)
    if (version := data.pop("format", None)) != FORMAT:
        raise ValueError(f"data: {path} has format {version}, this version reads {FORMAT}.")
    splits = {name: split_from_json(split) for name, split in data.pop("splits").items()}
    manifest = Manifest(splits=splits, **data)
    for split in splits.values():
        for shard in split.shards:
            _check_shard(folder / shard.file, shard)
    return manifest


def _check_shard(path: Path, shard: Shard) -> None:
    if is_left_in_bucket(path):
        return
    if not path.is_file():
        raise ValueError(f"data: shard {path} is missing; copy it again, or build the data anew.")
    if (size := path.stat().st_size) != shard.num_bytes:
        raise ValueError(
            f"data: shard {path} has {size} bytes where {MANIFEST} says {shard.num_bytes}: it is "
            "truncated or another file; copy it again, or build the data anew."
        )


def list_sources(directory: str | Path) -> list[str]:
    """Names of the sources in a folder that `llama-jax data build` wrote.

    Those that the build made are named even where their folder is gone, so that opening them
    fails: a source is never left out without a word.

    Raises:
        ValueError: If there is none.
    """
    names = {path.parent.name for path in Path(directory).glob(f"*/{MANIFEST}")}
    if (build := Path(directory) / BUILD).is_file():
        names |= set(_read_json(build)["sources"])
    if not names:
        raise ValueError(
            f"data.directory={str(directory)!r} holds no source of token shards; write it with "
            "`llama-jax data build RECIPE --out DIRECTORY`."
        )
    return sorted(names)


def built_mixture(directory: str | Path) -> tuple[tuple[str, float], ...]:
    """Pairs of source and weight that a folder was built for; none if its recipe named none."""
    path = Path(directory) / BUILD
    if not path.is_file():
        return ()
    stated = _read_json(path).get("config", {}).get("mixture", [])
    return tuple((name, float(weight)) for name, weight in stated)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"data: {path} cannot be read ({error}); copy it again, or build the data anew."
        ) from error


def encode_record(document_id: str, tokens: Integer[np.ndarray, " tokens"]) -> bytes:
    """The `tf.train.Example` {id, tokens}, whose last bytes are the tokens."""
    entries = ((b"id", document_id.encode()), (b"tokens", tokens.tobytes()))
    features = b"".join(
        # A map entry is a key and a Feature, which holds a BytesList, which holds the value.
        _field(1, _field(1, key) + _field(2, _field(1, _field(1, value))))
        for key, value in entries
    )
    return _field(1, features)


def decode_id(record: bytes) -> str:
    """The document's id in a record of `encode_record`."""
    features = _first_value(record)
    entry = _first_value(features)
    key = _first_value(entry)
    feature = _first_value(entry[2 + len(key) :])
    return _first_value(_first_value(feature)).decode()


def _field(number: int, value: bytes) -> bytes:
    """Protocol buffer field of bytes: tag, length, value."""
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _first_value(message: bytes) -> bytes:
    """Value of the first field of a message, which must be of bytes."""
    size, shift, at = 0, 0, 1
    while True:
        size |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            return message[at : at + size]


class SplitReader:
    """Documents of one split, by index; safe to share between threads.

    Args:
        folder: Of the source.
        manifest: From `read_manifest(folder)`.
        split: "train" or "heldout".

    Attributes:
        num_tokens_of: Tokens of each document.
        text_bytes_of: UTF-8 bytes of each document's text.
        windows: First document and first token of each window, and the ends of the last.
    """

    def __init__(self, folder: Path, manifest: Manifest, split: str):
        self.name = manifest.name
        self.split = split
        self.dtype = token_dtype(manifest.vocab_size)
        info = manifest.splits[split]
        documents = np.load(folder / f"{split}.documents.npy", mmap_mode="r")
        self.windows: Int64[np.ndarray, "windows 2"] = np.load(folder / f"{split}.windows.npy")
        if documents.shape != (info.num_documents, 2) or self.windows[-1, 0] != len(documents):
            raise ValueError(
                f"data: {folder / split}.documents.npy has {len(documents)} documents where "
                f"{MANIFEST} says {info.num_documents}; build the data anew."
            )
        self.num_tokens_of: UInt32[np.ndarray, " documents"] = documents[:, 0]
        self.text_bytes_of: UInt32[np.ndarray, " documents"] = documents[:, 1]
        self._paths = [folder / shard.file for shard in info.shards]
        self._sizes = [shard.num_bytes for shard in info.shards]
        self._readers: list[Any] = [None] * len(info.shards)
        self._locks = [threading.Lock() for _ in info.shards]
        counts = [shard.num_documents for shard in info.shards]
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).tolist()

    def read_tokens(
        self, documents: Iterable[int]
    ) -> Iterator[tuple[int, Integer[np.ndarray, " tokens"]]]:
        """Each document with its tokens, in ascending order of documents.

        Raises:
            ValueError: If a record does not have the length that the index states.
        """
        wanted = sorted(documents)
        start = 0
        while start < len(wanted):
            shard = bisect.bisect_right(self._firsts, wanted[start]) - 1
            end = bisect.bisect_left(wanted, self._firsts[shard + 1], start)
            batch = wanted[start:end]
            for document, record in zip(batch, self._read(shard, batch), strict=True):
                yield document, self._tokens_of(document, shard, record)
            start = end

    def document_id(self, document: int) -> str:
        """The id under which the document was collected."""
        shard = bisect.bisect_right(self._firsts, document) - 1
        return decode_id(self._read(shard, [document])[0])

    def _read(self, shard: int, documents: Sequence[int]) -> list[bytes]:
        first, records = self._firsts[shard], []
        try:
            with self._locks[shard]:
                reader = self._open(shard)
                # Seeking is 2 to 5 times faster than the reader's own batched read, which starts
                # threads for each call.
                position = -1
                for document in documents:
                    if document != position:
                        reader.seek(document - first)
                    records.append(reader.read())
                    position = document + 1
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"data: shard {self._paths[shard]} is damaged ({error}); copy it again, or build "
                "the data anew."
            ) from error
        return records

    def _open(self, shard: int) -> Any:
        if self._readers[shard] is None:
            from array_record.python.array_record_module import ArrayRecordReader

            fetch_shard(self._paths[shard], self._sizes[shard])
            self._readers[shard] = ArrayRecordReader(
                str(self._paths[shard]), options=_READER_OPTIONS, file_reader_buffer_size=1 << 15
            )
        return self._readers[shard]

    def _tokens_of(
        self, document: int, shard: int, record: bytes
    ) -> Integer[np.ndarray, " tokens"]:
        count, width = int(self.num_tokens_of[document]), self.dtype.itemsize
        tail = len(record) - count * width
        header = b"\x0a" + _varint(count * width)
        if tail < len(header) or record[tail - len(header) : tail] != header:
            raise ValueError(
                f"data: document {document - self._firsts[shard]} of shard {self._paths[shard]} "
                f"does not have the {count} tokens that the index states; build the data anew."
            )
        return np.frombuffer(record, self.dtype, count, tail)
