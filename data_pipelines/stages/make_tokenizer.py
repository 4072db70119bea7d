"""The tokenizer of a dataset: trained on its documents, or an existing file."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.config import TokenizerFile, TokenizerTraining
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.data.tokenizer import SENTENCEPIECE_NAME, TIKTOKEN_NAME, load_tokenizer

from ..engine import Progress
from ..tables import DOCUMENTS, read_documents


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MakeTokenizer:
    """How it comes about.

    Attributes:
        tokenizer: Trained, or read.
        max_bytes: Text taken from each of the inputs at most.
        held_out_fraction: Share of documents that it must not see.
    """

    tokenizer: TokenizerTraining | TokenizerFile
    max_bytes: tuple[int, ...] = ()
    held_out_fraction: float = 0.0


def make_tokenizer(
    config: MakeTokenizer, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Writes a tokenizer's file, trained on the first documents of each bucket in `inputs`."""
    if isinstance(config.tokenizer, TokenizerFile):
        given = load_tokenizer(config.tokenizer.path)
        name = SENTENCEPIECE_NAME if given.kind == "sentencepiece" else TIKTOKEN_NAME
        shutil.copyfile(given.path, folder / name)
    else:
        name = SENTENCEPIECE_NAME
        train_sentencepiece(
            _sample(config, inputs, progress),
            folder / name,
            vocab_size=config.tokenizer.vocab_size,
            num_threads=os.cpu_count() or 1,
        )
    made = load_tokenizer(folder / name)
    return {
        "file": name,
        "kind": made.kind,
        "sha256": made.sha256,
        "vocab_size": made.vocab_size,
    }


def _sample(config: MakeTokenizer, buckets: tuple[Path, ...], progress: Progress) -> Iterator[str]:
    for bucket, left in zip(buckets, config.max_bytes, strict=True):
        taken = 0
        for hashed in read_documents(bucket / DOCUMENTS):
            size = len(hashed.document.text.encode())
            taken += size
            if taken > left:
                break
            progress(size)
            if not hashed.is_held_out(config.held_out_fraction):
                yield hashed.document.text
