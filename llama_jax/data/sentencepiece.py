"""SentencePiece: LLaMA-1's and LLaMA-2's tokenizer, loaded or trained anew."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from llama_jax.checksum import file_sha256

# SentencePiece writes a space as this character, and so cannot tell the two apart in a text.
_META_SPACE = "\u2581".encode()
_LINE_BYTES = 4192
_CUT_BYTES = 1024
_FIRST_SPACE = re.compile(rb"(?<! ) ")


class SentencePieceTokenizer:
    """A SentencePiece model that round-trips every text.

    Ids equal SentencePiece's own, save for one repair: a literal U+2581, which SentencePiece
    turns into a space, is encoded as its three UTF-8 bytes where the model has byte pieces.
    """

    kind = "sentencepiece"

    def __init__(self, path: Path):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        self.path = path
        self.sha256 = file_sha256(path)
        model: Any = vars(sentencepiece_model_pb2)["ModelProto"]()
        try:
            model.ParseFromString(path.read_bytes())
        except Exception as error:
            raise ValueError(
                f"tokenizer.path={str(path)!r} is no SentencePiece model: {error}."
            ) from error
        if not model.pieces:
            raise ValueError(f"tokenizer.path={str(path)!r} is no SentencePiece model: no pieces.")
        # The prefix is added here instead, so that a text can be encoded in parts.
        self._prefix = " " if model.normalizer_spec.add_dummy_prefix else ""
        model.normalizer_spec.add_dummy_prefix = False
        self._processor: Any = sentencepiece.SentencePieceProcessor(
            model_proto=model.SerializeToString()
        )
        self.vocab_size: int = self._processor.get_piece_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        if self.bos_id < 0 or self.eos_id < 0:
            raise ValueError(
                f"tokenizer.path={str(path)!r} has no id for the beginning or the end of a "
                "document; LLaMA's shards need both."
            )
        bytes_of = [self._processor.piece_to_id(f"<0x{b:02X}>") for b in _META_SPACE]
        byte_fallback = bool(model.trainer_spec.byte_fallback)
        self._meta_space = bytes_of if byte_fallback else None
        unchanged = (
            model.normalizer_spec.name == "identity"
            and not model.normalizer_spec.remove_extra_whitespaces
        )
        self.lossless = byte_fallback and unchanged
        # No piece goes on behind a word: so none is lost where a text is cut before a space.
        self._can_cut = unchanged and not any(
            "\u2581" in piece.piece.lstrip("\u2581") for piece in model.pieces
        )

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False
    ) -> Int32[np.ndarray, " tokens"]:
        """Ids of `text`; see `Tokenizer.encode`."""
        return self.encode_batch([text], bos=bos, eos=eos)[0]

    def encode_batch(
        self, texts: Sequence[str], *, bos: bool = False, eos: bool = False, num_threads: int = 1
    ) -> list[Int32[np.ndarray, " _"]]:
        """Ids of each text; see `Tokenizer.encode_batch`."""
        parts: list[bytes] = []
        parts_of: list[list[int]] = []
        for text in texts:
            prefixed = (self._prefix + text if text else "").encode()
            split = [prefixed] if self._meta_space is None else prefixed.split(_META_SPACE)
            cut = [list(_cut(part)) if self._can_cut else [part] for part in split]
            parts += itertools.chain.from_iterable(cut)
            parts_of.append([len(pieces) for pieces in cut])
        encoded = iter(self._processor.encode(parts, num_threads=num_threads) if parts else [])
        head, tail = [self.bos_id] * bos, [self.eos_id] * eos
        return [
            np.fromiter(itertools.chain(head, *self._join(encoded, counts), tail), np.int32)
            for counts in parts_of
        ]

    def _join(self, encoded: Iterator[list[int]], counts: list[int]) -> Iterator[list[int]]:
        """Ids of a text: of so many pieces between each two of its meta spaces."""
        for number, count in enumerate(counts):
            if number:
                assert self._meta_space is not None
                yield self._meta_space
            yield from itertools.islice(encoded, count)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of a whole document's ids; see `Tokenizer.decode`."""
        text: str = self._processor.decode([int(i) for i in ids])
        return text.removeprefix(self._prefix)

    def piece(self, token: int) -> str:
        """How one id is shown to people."""
        return self._processor.id_to_piece(int(token))


def _cut(text: bytes) -> Iterator[bytes]:
    """Pieces of about a kilobyte, each but the first from a space behind a word on.

    The library searches a whole text for every merge: of a book it takes twice as long.
    """
    start = 0
    while found := _FIRST_SPACE.search(text, start + _CUT_BYTES):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def train_sentencepiece(
    texts: Iterable[str], path: Path, *, vocab_size: int, num_threads: int = 2
) -> None:
    """Trains a BPE model with LLaMA's settings and writes it to `path`.

    The settings are those that LLaMA-2's published model file states in its trainer spec: BPE,
    digits split, byte fallback, identity normalisation, whitespace-only pieces, character
    coverage 0.99995; ids 0, 1 and 2 are unknown, beginning and end.

    Raises:
        ValueError: If the texts are too few for so many pieces.
    """
    import sentencepiece

    temporary = path.with_name(f"{path.name}.partial")
    try:
        with temporary.open("wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                split_digits=True,
                byte_fallback=True,
                allow_whitespace_only_pieces=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                character_coverage=0.99995,
                max_sentence_length=_LINE_BYTES,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=-1,
                num_threads=num_threads,
                minloglevel=2,
            )
        temporary.rename(path)
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer.vocab_size={vocab_size} could not be trained: {error}. A vocabulary must "
            "be smaller than what the sample of text can fill: lower it, or give more text."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines short enough for SentencePiece, which would drop longer ones without a word."""
    longest = _LINE_BYTES // 4
    for text in texts:
        for line in text.splitlines():
            for start in range(0, len(line), longest):
                yield line[start : start + longest].replace("\0", "")
