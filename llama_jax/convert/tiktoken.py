"""A tiktoken vocabulary as the `tokenizer.json` that transformers' `AutoTokenizer` reads.

Ids are those of tiktoken: a byte-level BPE that joins the two neighbours whose union has the
lowest rank. The tokenizers library wants the pairs listed in that order, and bytes as printable
characters (Source: GPT-2's encoder.py, `bytes_to_unicode`).
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.convert.tokenizer import SpecialTokens, added_token


class Vocabulary(NamedTuple):
    """What a tiktoken encoding is made of.

    Attributes:
        path: The file of the ranks.
        ranks: Id of each sequence of bytes.
        pattern: Regular expression that cuts a text into words.
        special: Ids of the special tokens, by name.
        bos: Name of that which begins a document.
        eos: Name of that which ends it.
    """

    path: Path
    ranks: dict[bytes, int]
    pattern: str
    special: dict[str, int]
    bos: str
    eos: str

    def special_tokens(self) -> SpecialTokens:
        """Ids of the special tokens that a model's config names."""
        return SpecialTokens(bos=self.special[self.bos], eos=self.special[self.eos], pad=-1)


def write_tiktoken(vocabulary: Vocabulary, folder: Path, *, max_seq_len: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, and a copy of the original file."""
    shutil.copyfile(vocabulary.path, folder / "tokenizer.tiktoken")
    compact = json.dumps(_tokenizer_json(vocabulary), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": vocabulary.bos,
        "eos_token": vocabulary.eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
        "padding_side": "left",
        # A special token's name in a text is its characters, not the token.
        "split_special_tokens": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    letters = _letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    bos = vocabulary.bos
    start, text = (
        {"SpecialToken": {"id": bos, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    second = [
        {"SpecialToken": {"id": bos, "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
    bytes_as_letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(i, name) for name, i in vocabulary.special.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": vocabulary.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                bytes_as_letters | {"use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, text],
            "pair": [start, text, *second],
            "special_tokens": {bos: {"id": bos, "ids": [vocabulary.special[bos]], "tokens": [bos]}},
        },
        "decoder": bytes_as_letters | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # tiktoken too takes a word that is a token as it is, whether or not pairs lead there.
            "ignore_merges": True,
            "vocab": {written(token): rank for token, rank in vocabulary.ranks.items()},
            "merges": [[written(left), written(right)] for left, right in _merges(vocabulary)],
        },
    }


def _merges(vocabulary: Vocabulary) -> list[tuple[bytes, bytes]]:
    ranks = vocabulary.ranks
    pairs = [
        (rank, cut, token)
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    return [(token[:cut], token[cut:]) for _, cut, token in sorted(pairs)]


def _letters() -> list[str]:
    """A printable character for each byte: itself where it has one, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(rest)) for byte in range(0x100)]
