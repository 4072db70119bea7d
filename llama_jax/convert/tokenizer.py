"""A SentencePiece tokenizer in the files that transformers' `AutoTokenizer` reads.

`tokenizer.json` is written here, from the pieces and their order, so that transformers has
nothing to guess: its own reading of a bare `tokenizer.model` differs between its releases. Ids are
those of `llama_jax.data`, but for a literal U+2581 in a text: transformers reads it as a space.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

_SPACE = "▁"  # what SentencePiece writes for a space


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that no text produces; -1 where the tokenizer has none."""

    bos: int
    eos: int
    pad: int


def read_sentencepiece(path: Path) -> Any:
    """Reads a SentencePiece model as its protocol buffer.

    Raises:
        ValueError: If it is none, or one whose rules the tokenizers library cannot follow.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"tokenizer={str(path)!r} is no SentencePiece model: {error}.") from error
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces}
    rules = {
        "is not a BPE model": trainer.model_type != trainer.BPE,
        "has no byte fallback": not trainer.byte_fallback,
        "normalises text": bool(normalizer.precompiled_charsmap),
        "removes spaces": normalizer.remove_extra_whitespaces,
        "writes spaces after words": trainer.treat_whitespace_as_suffix,
        "has pieces of its user": 4 in kinds,  # USER_DEFINED
        "has no token for the beginning": trainer.bos_id < 0,
    }
    if broken := [what for what, is_so in rules.items() if is_so]:
        raise ValueError(
            f"tokenizer={str(path)!r} {' and '.join(broken)}: its ids would differ in "
            "transformers, so it is not exported; export without it (--without-tokenizer)."
        )
    return model


def special_tokens(model: Any) -> SpecialTokens:
    """Ids of the special tokens of a model that `read_sentencepiece` gave."""
    trainer = model.trainer_spec
    return SpecialTokens(bos=trainer.bos_id, eos=trainer.eos_id, pad=trainer.pad_id)


def write_tokenizer(model: Any, source: Path, folder: Path, *, max_seq_len: int) -> None:
    """Writes tokenizer.model, tokenizer.json and tokenizer_config.json.

    Args:
        model: From `read_sentencepiece`.
        source: The file that it was read from, copied as it is.
        folder: Where the files go.
        max_seq_len: Context of the model, tokens.
    """
    shutil.copyfile(source, folder / "tokenizer.model")
    compact = json.dumps(_tokenizer_json(model), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    special = special_tokens(model)
    names = {
        f"{role}_token": model.pieces[index].piece
        for role, index in dataclasses.asdict(special).items()
        if index >= 0
    }
    config = names | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": model.pieces[model.trainer_spec.unk_id].piece,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
        "padding_side": "left",
        # "</s>" in a text is four characters, not the end of the document.
        "split_special_tokens": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _tokenizer_json(model: Any) -> dict[str, Any]:
    trainer = model.trainer_spec
    unknown = model.pieces[trainer.unk_id].piece
    bos = model.pieces[trainer.bos_id].piece
    prepend = [{"type": "Prepend", "prepend": _SPACE}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    with_prefix = model.normalizer_spec.add_dummy_prefix
    to_marks = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    to_spaces = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    start, text = (
        {"SpecialToken": {"id": bos, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    second = [
        {"SpecialToken": {"id": bos, "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(model),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*(prepend if with_prefix else []), to_marks],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, text],
            "pair": [start, text, *second],
            "special_tokens": {bos: {"id": bos, "ids": [trainer.bos_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                to_spaces,
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *(strip if with_prefix else []),
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece.piece: index for index, piece in enumerate(model.pieces)},
            "merges": _merges(model),
        },
    }


def _added_tokens(model: Any) -> list[dict[str, Any]]:
    special = [
        (index, piece.piece)
        for index, piece in enumerate(model.pieces)
        if piece.type in (piece.UNKNOWN, piece.CONTROL)
    ]
    return [added_token(index, content) for index, content in special]


def added_token(index: int, content: str) -> dict[str, Any]:
    """How `tokenizer.json` lists a special token."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _merges(model: Any) -> list[list[str]]:
    # SentencePiece joins any two neighbours whose union is a piece, the best-scored union first;
    # the tokenizers library needs those pairs listed, in that order.
    score = {piece.piece: piece.score for piece in model.pieces if piece.type == piece.NORMAL}
    pairs = [
        (-union_score, len(union[:cut]), [union[:cut], union[cut:]])
        for union, union_score in score.items()
        for cut in range(1, len(union))
        if union[:cut] in score and union[cut:] in score
    ]
    return [pair for *_, pair in sorted(pairs, key=lambda entry: entry[:2])]
