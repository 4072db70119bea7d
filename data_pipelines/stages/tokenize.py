"""Documents to token shards: those for training, or those held out."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from llama_jax.data.shard_writer import SplitWriter
from llama_jax.data.shards import split_to_json
from llama_jax.data.tokenizer import Tokenizer, find_tokenizer, load_tokenizer

from ..engine import Progress
from ..tables import DOCUMENTS, Hashed, is_held_out, read_documents

_BATCH_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tokenize:
    """What is written.

    Attributes:
        source: Name of the source.
        split: Which documents of the inputs.
        held_out_fraction: Share of documents that are held out.
        shard_tokens: Tokens of a shard, about.
    """

    source: str
    split: Literal["train", "heldout"]
    held_out_fraction: float
    shard_tokens: int


class Tokenized(NamedTuple):
    """A document's tokens, from its beginning token to its end token.

    Attributes:
        hashed: The document.
        tokens: Its ids.
        text_bytes: UTF-8 bytes of its text.
    """

    hashed: Hashed
    tokens: np.ndarray
    text_bytes: int


def tokenize(
    config: Tokenize, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Writes shards of a split; `inputs` are the tokenizer, then buckets in their order."""
    tokenizer = load_tokenizer(find_tokenizer(inputs[0]))
    writer = SplitWriter(
        folder,
        config.source,
        config.split,
        vocab_size=tokenizer.vocab_size,
        shard_tokens=config.shard_tokens,
    )
    lengths, languages = Histogram(), dict[str, int]()
    for each in encode(_of_split(config, inputs[1:]), tokenizer, num_threads=1):
        document = each.hashed.document
        writer.add(document.id, each.tokens, text_bytes=each.text_bytes)
        lengths.add(len(each.tokens))
        languages[document.language] = languages.get(document.language, 0) + 1
        progress(each.text_bytes)
    return {
        "split": split_to_json(writer.close()),
        "lengths": lengths.counts,
        "languages": dict(sorted(languages.items())),
    }


class Histogram:
    """Counts by powers of two: `counts[k]` is of numbers from 2^k to 2^(k+1) - 1."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def add(self, number: int) -> None:
        """Counts a positive number."""
        power = number.bit_length() - 1
        self.counts += [0] * (power + 1 - len(self.counts))
        self.counts[power] += 1


def encode(
    documents: Iterable[Hashed], tokenizer: Tokenizer, *, num_threads: int
) -> Iterator[Tokenized]:
    """Encodes documents in batches of about 4 MB; their order is kept."""
    batch: list[Hashed] = []
    size = 0
    for hashed in documents:
        batch.append(hashed)
        size += len(hashed.document.text)
        if size >= _BATCH_BYTES:
            yield from _encode(batch, tokenizer, num_threads)
            batch, size = [], 0
    yield from _encode(batch, tokenizer, num_threads)


def _encode(batch: list[Hashed], tokenizer: Tokenizer, num_threads: int) -> Iterator[Tokenized]:
    texts = [hashed.document.text for hashed in batch]
    encoded = tokenizer.encode_batch(texts, bos=True, eos=True, num_threads=num_threads)
    for hashed, text, tokens in zip(batch, texts, encoded, strict=True):
        yield Tokenized(hashed, tokens, len(text.encode()))


def _of_split(config: Tokenize, buckets: Iterable[Path]) -> Iterator[Hashed]:
    def wanted(digest: bytes) -> bool:
        return is_held_out(digest, config.held_out_fraction) == (config.split == "heldout")

    for bucket in buckets:
        yield from read_documents(bucket / DOCUMENTS, wanted)
