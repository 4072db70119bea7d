"""LLaMA-3's tokenizer: byte-level BPE read from its tiktoken file."""

import base64
import concurrent.futures
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from llama_jax.checksum import file_sha256

# Source: Meta's llama3 repository, llama/tokenizer.py (pattern, names and order of the 256
# special tokens, and the lengths at which a text is cut).
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMED_SPECIAL = (
    "begin_of_text",
    "end_of_text",
    "reserved_special_token_0",
    "reserved_special_token_1",
    "reserved_special_token_2",
    "reserved_special_token_3",
    "start_header_id",
    "end_header_id",
    "reserved_special_token_4",
    "eot_id",
)
_NUM_SPECIAL = 256
_MAX_CHARS = 400_000
_MAX_RUN = 25_000
# The regex engine recurses along a run of one kind of character, and would overflow its stack.
_LONG_RUN = re.compile(rf"\s{{{_MAX_RUN + 1}}}|\S{{{_MAX_RUN + 1}}}")
_WINDOW = _MAX_RUN // 2
_SPACE = re.compile(r"\s")
_RUNS = re.compile(rf"\s{{1,{_MAX_RUN}}}|\S{{1,{_MAX_RUN}}}")


class TiktokenTokenizer:
    """Byte-level BPE with LLaMA-3's splitting pattern; it round-trips every text."""

    kind = "tiktoken"
    lossless = True

    def __init__(self, path: Path):
        import tiktoken

        self.path = path
        self.sha256 = file_sha256(path)
        ranks = _read_ranks(path)
        reserved = range(5, 5 + _NUM_SPECIAL - len(_NAMED_SPECIAL))
        names = (*_NAMED_SPECIAL, *(f"reserved_special_token_{i}" for i in reserved))
        special = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(names)}
        self._special = {token: name for name, token in special.items()}
        self.ranks, self.special, self.pattern = ranks, special, _PATTERN
        self._encoding = tiktoken.Encoding(
            name=path.stem, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        self.vocab_size = len(ranks) + len(special)
        self.bos_id = special["<|begin_of_text|>"]
        self.eos_id = special["<|end_of_text|>"]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False
    ) -> Int32[np.ndarray, " tokens"]:
        """Ids of `text`; see `Tokenizer.encode`."""
        return self.encode_batch([text], bos=bos, eos=eos)[0]

    def encode_batch(
        self, texts: Sequence[str], *, bos: bool = False, eos: bool = False, num_threads: int = 1
    ) -> list[Int32[np.ndarray, " _"]]:
        """Ids of each text; see `Tokenizer.encode_batch`."""
        parts_of = [_cut(text) for text in texts]
        parts = itertools.chain.from_iterable(parts_of)
        if num_threads > 1:
            with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
                encoded = pool.map(self._encode, parts)
        else:
            encoded = map(self._encode, parts)
        head, tail = [self.bos_id] * bos, [self.eos_id] * eos
        return [
            np.concatenate(
                [head, *itertools.islice(encoded, len(parts)), tail],
                dtype=np.int32,
                casting="unsafe",
            )
            for parts in parts_of
        ]

    def _encode(self, part: str) -> np.ndarray:
        # No special token is taken: as `encode_ordinary`, but without a list of the ids.
        return self._encoding.encode_to_numpy(part, disallowed_special=())

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a whole document's ids; see `Tokenizer.decode`."""
        ordinary = [int(i) for i in ids if int(i) not in self._special]
        return self._encoding.decode(ordinary, errors="replace")

    def piece(self, token: int) -> str:
        """How one id is shown to people."""
        return self._encoding.decode_bytes([int(token)]).decode("utf-8", "backslashreplace")


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Reads lines of a base64 token and its rank; tiktoken's own reader may give a stale copy."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise ValueError(
                f"tokenizer.path={str(path)!r}, line {number}: {line[:40]!r} is no base64 token "
                "and rank; the file is damaged."
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(
            f"tokenizer.path={str(path)!r} has {len(ranks)} tokens whose ranks leave gaps; the "
            "file is cut short or damaged."
        )
    return ranks


def _cut(text: str) -> list[str]:
    """Cuts a text where Meta's tokenizer does: each 400,000 characters, and inside long runs."""
    text.encode()  # tiktoken would replace lone surrogates without a word
    parts = []
    for start in range(0, len(text), _MAX_CHARS):
        part = text[start : start + _MAX_CHARS]
        parts += _cut_runs(part) if _has_long_run(part) else [part]
    return parts


def _has_long_run(text: str) -> bool:
    # It would fill one of these windows; of most texts no window is looked into beyond a word.
    windows = (text[at : at + _WINDOW] for at in range(0, len(text) - _WINDOW + 1, _WINDOW))
    if any(window.isspace() or not _SPACE.search(window) for window in windows):
        return _LONG_RUN.search(text) is not None
    return False


def _cut_runs(text: str) -> list[str]:
    """Cuts so that no part has a run of more than 25,000 spaces, or of none."""
    parts, start, previous = [], 0, None
    for run in _RUNS.finditer(text):
        is_space = text[run.start()].isspace()
        if is_space == previous:
            parts.append(text[start : run.start()])
            start = run.start()
        previous = is_space
    return [*parts, text[start:]]
