"""Tokens to shards: training documents and held-out ones, each split in the order given."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from llama_jax.data.shard_writer import SplitWriter, write_manifest
from llama_jax.data.shards import Manifest
from llama_jax.data.tokenizer import Tokenizer

from .tokenize import Tokenized


def write_shards(
    documents: Iterable[Tokenized],
    folder: Path,
    *,
    source: str,
    tokenizer: Tokenizer,
    held_out_fraction: float,
    shard_tokens: int,
) -> Iterator[Tokenized | Manifest]:
    """Writes a source's folder; gives each document once written, and the manifest at the end."""
    folder.mkdir(parents=True)
    train, held_out = (
        SplitWriter(
            folder, source, split, vocab_size=tokenizer.vocab_size, shard_tokens=shard_tokens
        )
        for split in ("train", "heldout")
    )
    for document in documents:
        writer = held_out if document.hashed.is_held_out(held_out_fraction) else train
        writer.add(document.hashed.document.id, document.tokens, text_bytes=document.text_bytes)
        yield document
    manifest = Manifest(
        name=source,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        splits={"train": train.close(), "heldout": held_out.close()},
    )
    write_manifest(folder, manifest)
    yield manifest
