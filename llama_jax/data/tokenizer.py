"""Text to token ids and back, whatever file the vocabulary came in."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

SENTENCEPIECE_NAME = "tokenizer.model"
TIKTOKEN_NAME = "tokenizer.tiktoken"


@runtime_checkable
class Tokenizer(Protocol):
    """A vocabulary and its rules.

    Attributes:
        kind: "sentencepiece" or "tiktoken".
        path: The file it was loaded from.
        sha256: Of that file.
        vocab_size: Ids are in [0, vocab_size), special tokens included.
        bos_id: Begins every document.
        eos_id: Ends every document.
        lossless: Whether `decode(encode(text)) == text` for every text.
    """

    kind: str
    path: Path
    sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int
    lossless: bool

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False
    ) -> Int32[np.ndarray, " tokens"]:
        """Ids of `text`; special tokens come from the flags alone, never from the text.

        Raises:
            UnicodeEncodeError: If the text has lone surrogates, which are no characters.
        """
        ...

    def encode_batch(
        self, texts: Sequence[str], *, bos: bool = False, eos: bool = False, num_threads: int = 1
    ) -> list[Int32[np.ndarray, " _"]]:
        """Ids of each text, computed by `num_threads` threads."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a whole document's ids; special tokens have none.

        Bytes that are no UTF-8, as at the cut end of a text, become U+FFFD.
        """
        ...

    def piece(self, token: int) -> str:
        """How one id is shown to people."""
        ...


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Loads a SentencePiece model or LLaMA-3's tiktoken file, told apart by their content.

    Raises:
        ValueError: If the file is missing, or is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"tokenizer.path={str(path)!r}: there is no such file; name a SentencePiece .model or "
            "a tiktoken file."
        )
    with path.open("rb") as file:
        first_line = file.readline(4096)
    if _is_tiktoken(first_line):
        from llama_jax.data.tiktoken import TiktokenTokenizer

        return TiktokenTokenizer(path)
    from llama_jax.data.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer(path)


def find_tokenizer(directory: str | Path) -> Path:
    """The tokenizer's file in a folder that `llama-jax data build` wrote.

    Raises:
        ValueError: If there is none.
    """
    for name in (SENTENCEPIECE_NAME, TIKTOKEN_NAME):
        if (path := Path(directory) / name).is_file():
            return path
    raise ValueError(
        f"data.directory={str(directory)!r} has neither {SENTENCEPIECE_NAME} nor {TIKTOKEN_NAME}; "
        "write it with `llama-jax data build`."
    )


def _is_tiktoken(first_line: bytes) -> bool:
    """Whether a file starts as tiktoken's do: a base64 token, a space, a rank."""
    token, _, rank = first_line.strip().partition(b" ")
    try:
        base64.b64decode(token, validate=True)
    except binascii.Error:
        return False
    return bool(token) and rank.isdigit()
