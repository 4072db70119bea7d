"""Streamed text is the text of all tokens, and is never cut inside a character."""

import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.infer.text_stream import TextStream

TEXT = ["the quick brown fox jumps over the lazy dog", "def main(): return 12345", "a b c d e"] * 20


def train():
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=stream,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())


TOKENIZER = train()


@settings(deadline=None, max_examples=100)
@given(st.text(), st.text(), st.integers(1, 4))
def test_parts_join_to_the_whole(prompt, rest, stride):
    start = [TOKENIZER.bos_id(), *TOKENIZER.EncodeAsIds(prompt)]
    ids = TOKENIZER.EncodeAsIds(prompt + rest)[len(start) - 1 :]
    stream = TextStream(TOKENIZER.DecodeIds, start)
    parts = [stream.push(ids[i : i + stride]) for i in range(0, len(ids), stride)]
    parts.append(stream.flush())
    whole = TOKENIZER.DecodeIds([*start, *ids])
    assert TOKENIZER.DecodeIds(start).rstrip("\ufffd") + "".join(parts) == whole


def test_a_character_waits_for_all_of_its_bytes():
    ids = TOKENIZER.EncodeAsIds("x漢y")
    stream = TextStream(TOKENIZER.DecodeIds, ids[:-4])
    assert [stream.push([token]) for token in ids[-4:]] == ["", "", "漢", "y"]


def test_a_prompt_may_end_inside_a_character():
    ids = TOKENIZER.EncodeAsIds("x漢y")
    stream = TextStream(TOKENIZER.DecodeIds, ids[:-2])
    assert [stream.push([token]) for token in ids[-2:]] == ["漢", "y"]


def test_what_never_becomes_a_character_comes_at_the_end():
    first_byte = TOKENIZER.EncodeAsIds("漢")[-3]
    stream = TextStream(TOKENIZER.DecodeIds, TOKENIZER.EncodeAsIds("x"))
    assert stream.push([first_byte]) == ""
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize("prompt", ["the", ""])
def test_a_space_between_prompt_and_rest_is_kept(prompt):
    start = [TOKENIZER.bos_id(), *TOKENIZER.EncodeAsIds(prompt)]
    (word,) = TOKENIZER.EncodeAsIds("the")
    added = TextStream(TOKENIZER.DecodeIds, start).push([word])
    assert added == (" the" if prompt else "the")
