"""Writes the shard format; TensorFlow Datasets is imported here and nowhere at training time."""

import dataclasses
import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from llama_jax.atomic import link
from llama_jax.data.shards import (
    MANIFEST,
    WINDOW_DOCUMENTS,
    WINDOW_TOKENS,
    WRITER_OPTIONS,
    Manifest,
    Shard,
    Split,
    encode_record,
    shard_name,
    token_dtype,
)


class SplitWriter:
    """Writes the documents of one split, in the order given.

    Args:
        folder: Of the source; it must exist.
        source: Name of the source.
        split: "train" or "heldout".
        vocab_size: Every token must be below it.
        shard_tokens: A shard is closed once it has so many.
    """

    def __init__(
        self, folder: Path, source: str, split: str, *, vocab_size: int, shard_tokens: int
    ):
        self._folder, self._source, self._split = folder, source, split
        self._vocab_size, self._shard_tokens = vocab_size, shard_tokens
        self._dtype = token_dtype(vocab_size)
        self._writer: Any = None
        self._tokens_in_shard = 0
        self._shard_ends: list[int] = []
        self._shard_hashes: list[Any] = []
        self._documents = array("I")
        self._windows = [(0, 0)]
        self._num_tokens = 0

    def add(
        self, document_id: str, tokens: Integer[np.ndarray, " tokens"], *, text_bytes: int
    ) -> None:
        """Appends a document.

        Raises:
            ValueError: If it has fewer than two tokens, or one outside the vocabulary.
        """
        if len(tokens) < 2:
            raise ValueError(f"document {document_id!r} has {len(tokens)} tokens; 2 are the least.")
        if not 0 <= tokens.min() <= tokens.max() < self._vocab_size:
            raise ValueError(
                f"document {document_id!r} has token {tokens.max()}, outside the vocabulary of "
                f"{self._vocab_size}."
            )
        self._writer = self._writer or self._open_shard()
        record = encode_record(document_id, tokens.astype(self._dtype))
        self._writer.write(record)
        self._shard_hashes[-1].update(record)
        self._documents.extend((len(tokens), text_bytes))
        self._num_tokens += len(tokens)
        self._tokens_in_shard += len(tokens)
        count = len(self._documents) // 2
        document, token = self._windows[-1]
        if count - document >= WINDOW_DOCUMENTS or self._num_tokens - token >= WINDOW_TOKENS:
            self._windows.append((count, self._num_tokens))
        if self._tokens_in_shard >= self._shard_tokens:
            self._close_shard()

    def close(self) -> Split:
        """Ends the last shard, gives the shards their names and writes the index."""
        self._close_shard()
        count = len(self._documents) // 2
        if self._windows[-1][0] != count:
            self._windows.append((count, self._num_tokens))
        documents = np.frombuffer(self._documents, np.uint32).reshape(-1, 2)
        np.save(self._folder / f"{self._split}.documents.npy", documents)
        np.save(self._folder / f"{self._split}.windows.npy", np.array(self._windows, np.int64))
        shards, start = [], 0
        ends_and_hashes = zip(self._shard_ends, self._shard_hashes, strict=True)
        for index, (end, digest) in enumerate(ends_and_hashes):
            name = shard_name(self._source, self._split, index, len(self._shard_ends))
            path = self._partial(index).rename(self._folder / name)
            shards.append(
                Shard(
                    file=name,
                    num_bytes=path.stat().st_size,
                    num_documents=end - start,
                    sha256=digest.hexdigest(),
                )
            )
            start = end
        return Split(
            shards=tuple(shards),
            num_documents=count,
            num_tokens=self._num_tokens,
            text_bytes=int(documents[:, 1].sum(dtype=np.int64)),
        )

    def _partial(self, index: int) -> Path:
        return self._folder / f"{self._split}-{index}.partial"

    def _open_shard(self) -> Any:
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self._partial(len(self._shard_ends))
        self._tokens_in_shard = 0
        self._shard_hashes.append(hashlib.sha256())
        return ArrayRecordWriter(str(path), WRITER_OPTIONS)

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._shard_ends.append(len(self._documents) // 2)


def merge_splits(
    parts: Sequence[tuple[Path, Split]], folder: Path, source: str, split: str
) -> Split:
    """Puts what several writers of one split have closed into one folder, one after the other.

    Shards are linked, not copied, where the file system can.

    Args:
        parts: Folder of each writer, and what it gave.
        folder: Of the source; it must exist.
        source: Name of the source.
        split: "train" or "heldout".
    """
    count = sum(len(part.shards) for _, part in parts)
    shards: list[Shard] = []
    windows = [np.zeros((1, 2), np.int64)]
    num_documents = sum(part.num_documents for _, part in parts)
    path = folder / f"{split}.documents.npy"
    documents = np.zeros((0, 2), np.uint32)
    np.save(path, documents)
    if num_documents:
        documents = np.lib.format.open_memmap(path, "w+", documents.dtype, (num_documents, 2))
    for from_folder, part in parts:
        for shard in part.shards:
            name = shard_name(source, split, len(shards), count)
            link(from_folder / shard.file, folder / name)
            shards.append(dataclasses.replace(shard, file=name))
        first = windows[-1][-1]
        if part.num_documents:
            documents[first[0] :][: part.num_documents] = np.load(from_folder / path.name)
            windows.append(first + np.load(from_folder / f"{split}.windows.npy")[1:])
    np.save(folder / f"{split}.windows.npy", np.concatenate(windows))
    return Split(
        shards=tuple(shards),
        num_documents=num_documents,
        num_tokens=sum(part.num_tokens for _, part in parts),
        text_bytes=sum(part.text_bytes for _, part in parts),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Describes finished shards to TensorFlow Datasets and to `read_manifest`."""
    import tensorflow_datasets as tfds

    dtype = token_dtype(manifest.vocab_size)
    # Of the encodings for arrays of any length, bytes is read fastest: 12 times a Sequence's rate.
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "tokens": tfds.features.Tensor(shape=(None,), dtype=dtype.type, encoding="bytes"),
        }
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[shard.num_documents for shard in split.shards],
                num_bytes=sum(shard.num_bytes for shard in split.shards),
            )
            for name, split in manifest.splits.items()
            if split.shards
        ],
        check_data=False,
        description=(
            f"Documents of {manifest.name} as tokens of the tokenizer {manifest.tokenizer_sha256}."
        ),
    )
    (folder / MANIFEST).write_text(manifest.to_json())
