"""Exported tokenizers, judged without transformers: the parity tests compare the ids."""

import io
import json

import pytest
import sentencepiece

from llama_jax.convert.tiktoken import Vocabulary, write_tiktoken
from llama_jax.convert.tokenizer import (
    SpecialTokens,
    read_sentencepiece,
    special_tokens,
    write_tokenizer,
)

TEXT = ["the quick brown fox jumps over the lazy dog", "def main(): return 12345", "a b c d e"] * 20


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    def train(**changes):
        stream = io.BytesIO()
        arguments = {
            "model_type": "bpe",
            "vocab_size": 320,
            "byte_fallback": True,
            "split_digits": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "minloglevel": 2,
        }
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT), model_writer=stream, **arguments | changes
        )
        path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
        path.write_bytes(stream.getvalue())
        return path

    return train


def test_vocabulary_and_special_tokens_keep_their_ids(train, tmp_path):
    source = train()
    model = read_sentencepiece(source)
    write_tokenizer(model, source, tmp_path, max_seq_len=64)
    ours = sentencepiece.SentencePieceProcessor(model_file=str(source))
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["model"]["vocab"] == {ours.IdToPiece(i): i for i in range(ours.GetPieceSize())}
    assert [(t["id"], t["content"]) for t in written["added_tokens"]] == [
        (0, "<unk>"),
        (1, "<s>"),
        (2, "</s>"),
    ]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<s>", "</s>")
    assert config["split_special_tokens"] is True
    assert special_tokens(model).bos == ours.bos_id()
    assert special_tokens(model).eos == ours.eos_id()
    assert (tmp_path / "tokenizer.model").read_bytes() == source.read_bytes()


def test_merges_make_every_piece_and_better_ones_come_first(train, tmp_path):
    source = train()
    write_tokenizer(read_sentencepiece(source), source, tmp_path, max_seq_len=64)
    merges = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"][
        "merges"
    ]
    ours = sentencepiece.SentencePieceProcessor(model_file=str(source))
    scores = [ours.GetScore(ours.PieceToId(left + right)) for left, right in merges]
    assert scores == sorted(scores, reverse=True)
    made = {left + right for left, right in merges}
    longer = {
        ours.IdToPiece(i)
        for i in range(ours.GetPieceSize())
        if len(ours.IdToPiece(i)) > 1 and not ours.IsByte(i) and i > 2
    }
    assert made == longer


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "unigram", "vocab_size": 295}, "is not a BPE model"),
        ({"byte_fallback": False, "vocab_size": 60}, "has no byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises text"),
        ({"remove_extra_whitespaces": True}, "removes spaces"),
        ({"treat_whitespace_as_suffix": True}, "writes spaces after words"),
        ({"user_defined_symbols": ["<x>"]}, "has pieces of its user"),
        ({"bos_id": -1}, "has no token for the beginning"),
    ],
)
def test_rules_that_transformers_would_not_follow_are_refused(train, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_sentencepiece(train(**changes))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="is no SentencePiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")


def test_a_tiktoken_vocabulary_keeps_its_ids_and_the_order_of_its_pairs(tmp_path):
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b" a", b"abc", b" abc", b"bc"]
    source = tmp_path / "t.tiktoken"
    source.write_text("original")
    vocabulary = Vocabulary(
        path=source,
        ranks={token: rank for rank, token in enumerate(tokens)},
        pattern="x",
        special={"<s>": 261, "</s>": 262},
        bos="<s>",
        eos="</s>",
    )
    write_tiktoken(vocabulary, tmp_path, max_seq_len=64)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert list(written["model"]["vocab"].values()) == list(range(261))
    assert written["model"]["vocab"]["Ġabc"] == 259
    pairs = [["a", "b"], ["Ġ", "a"], ["a", "bc"], ["ab", "c"]]
    assert written["model"]["merges"] == [*pairs, ["Ġ", "abc"], ["Ġa", "bc"], ["b", "c"]]
    assert [(t["id"], t["content"]) for t in written["added_tokens"]] == [
        (261, "<s>"),
        (262, "</s>"),
    ]
    assert (tmp_path / "tokenizer.tiktoken").read_text() == "original"
    assert vocabulary.special_tokens() == SpecialTokens(bos=261, eos=262, pad=-1)
