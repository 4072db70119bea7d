"""Small datasets whose tokens say which document they came from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from llama_jax.data.shard_writer import SplitWriter, write_manifest
from llama_jax.data.shards import Manifest

CORPORA = Path(__file__).parents[2].parent / "shared" / "corpora"
VOCAB_SIZE = 50_000
BOS, EOS = 1, 2


@pytest.fixture(scope="session")
def corpus_file() -> Callable[[str], Path]:
    """Finds a file of the shared corpora; skips the test where they are absent."""

    def find(name: str) -> Path:
        if not (path := CORPORA / name).is_file():
            pytest.skip(f"needs {name} in ../shared/corpora")
        return path

    return find


@pytest.fixture(scope="session")
def numbered_documents() -> Callable[[Sequence[int]], list[np.ndarray]]:
    """Makes documents of given lengths, in which no inner token appears twice."""

    def make(lengths: Sequence[int]) -> list[np.ndarray]:
        documents, start = [], 3
        for length in lengths:
            documents.append(np.array([BOS, *range(start, start + length - 2), EOS]))
            start += length - 2
        assert start < VOCAB_SIZE
        return documents

    return make


WriteDataset = Callable[..., Path]


@pytest.fixture
def write_dataset(tmp_path: Path) -> WriteDataset:
    """Writes a folder as `llama-jax data build` does, from tokens."""

    def write(
        train: Mapping[str, Sequence[np.ndarray]],
        heldout: Mapping[str, Sequence[np.ndarray]] | None = None,
        *,
        vocab_size: int = VOCAB_SIZE,
        shard_tokens: int = 1000,
        name: str = "dataset",
    ) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "tokenizer.model").write_bytes(b"stands for a tokenizer")
        sha256 = hashlib.sha256(b"stands for a tokenizer").hexdigest()
        for source, documents in train.items():
            folder = directory / source
            folder.mkdir()
            splits = {}
            for split, chosen in (
                ("train", documents),
                ("heldout", (heldout or {}).get(source, ())),
            ):
                writer = SplitWriter(
                    folder, source, split, vocab_size=vocab_size, shard_tokens=shard_tokens
                )
                for number, tokens in enumerate(chosen):
                    document_id = f"{source}/{split}/{number}"
                    writer.add(document_id, tokens, text_bytes=3 * len(tokens))
                splits[split] = writer.close()
            write_manifest(
                folder,
                Manifest(
                    name=source, tokenizer_sha256=sha256, vocab_size=vocab_size, splits=splits
                ),
            )
        return directory

    return write
