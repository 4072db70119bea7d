"""Text to ids and back: exactly, with special tokens coming from us alone."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_jax.data.sentencepiece import _cut, train_sentencepiece
from llama_jax.data.tokenizer import Tokenizer, find_tokenizer, load_tokenizer

SENTENCES = [
    f"Naïve façade {i}: the quick brown fox,\n\tjumps over {i * 37} dogs" for i in range(400)
]

# Whatever a tokenizer might take for something else: special tokens, byte pieces, SentencePiece's
# own sign for a space, its sign for the unknown, zero bytes, marks, spaces of all kinds.
TRAPS = ["<s>", "</s>", "<unk>", "<0x0A>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
TRAPS += [
    "▁",
    "▁▁",
    " ",
    "  ",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\u3000",
    "\u2028",
    "⁇",
    "\ufffd",
    "e\u0301",
]
TRAPS += ["\ufeff", "\U0010ffff", "a" * 50, "1234567890", "\x80", "😀👨‍👩‍👧", "İ", "ﬁ"]

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TEXTS = st.lists(st.one_of(st.sampled_from(TRAPS), UNICODE), max_size=8).map("".join)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_sentencepiece(SENTENCES, path, vocab_size=360, num_threads=1)
    return load_tokenizer(path)


@pytest.fixture(scope="session", params=["trained", "llama2.model", "llama3.tiktoken"])
def tokenizer(request, trained, corpus_file) -> Tokenizer:
    if request.param == "trained":
        return trained
    return load_tokenizer(corpus_file(f"tokenizers/{request.param}"))


@given(text=TEXTS)
@example(text="")
@example(text="".join(TRAPS))
@settings(max_examples=300, deadline=None)
def test_every_text_comes_back_from_its_ids(tokenizer, text):
    assert tokenizer.lossless
    ids = tokenizer.encode(text, bos=True, eos=True)
    assert ids.dtype == np.int32
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert tokenizer.decode(ids) == text
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocab_size


@given(text=TEXTS)
@example(text="".join(TRAPS))
@settings(max_examples=200, deadline=None)
def test_no_text_produces_a_special_token(tokenizer, text):
    special = {tokenizer.bos_id, tokenizer.eos_id}
    special |= {0} if tokenizer.kind == "sentencepiece" else set(range(128_000, 128_256))
    assert not special & set(tokenizer.encode(text).tolist())


def test_texts_encoded_together_are_those_encoded_alone(tokenizer):
    texts = [*TRAPS, *SENTENCES[:50], ""]
    together = tokenizer.encode_batch(texts, bos=True, eos=True, num_threads=4)
    for text, ids in zip(texts, together, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text, bos=True, eos=True))
    assert tokenizer.encode_batch([]) == []


def test_lone_surrogates_are_refused(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize("character", [" ", "a", "^", "\n", "é"])
def test_long_runs_of_one_character_come_back(tokenizer, character):
    text = character * 1_000_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_llama2_ids_are_sentencepieces_own_save_for_its_sign_for_a_space(corpus_file):
    import sentencepiece

    path = corpus_file("tokenizers/llama2.model")
    ours, theirs = load_tokenizer(path), sentencepiece.SentencePieceProcessor(str(path))
    for text in [*TRAPS, *SENTENCES[:20], "".join(TRAPS).replace("▁", "")]:
        if "▁" not in text:
            assert ours.encode(text).tolist() == theirs.encode(text)
    assert theirs.decode(theirs.encode("▁")) == " "
    assert ours.decode(ours.encode("▁")) == "▁"


@pytest.mark.parametrize("model", ["trained", "llama2.model"])
def test_texts_encoded_in_pieces_have_the_ids_of_the_whole(
    model, trained, corpus_file, monkeypatch
):
    """Cut every few bytes, a text's spaces and words stand in every place beside a cut."""
    import sentencepiece

    path = trained.path if model == "trained" else corpus_file(f"tokenizers/{model}")
    ours, theirs = load_tokenizer(path), sentencepiece.SentencePieceProcessor(str(path))
    chosen = random.Random(0)
    traps = [trap for trap in TRAPS if "▁" not in trap] + ["  ", " the", " a", "\n    x", "), ("]
    text = "".join(chosen.choices([*traps, *SENTENCES[:20]], k=2000))
    whole = theirs.encode(text)
    cuts = set()
    for size in (1, 2, 3, 5, 64):
        monkeypatch.setattr("llama_jax.data.sentencepiece._CUT_BYTES", size)
        cuts.add(len(list(_cut(text.encode()))))
        assert ours.encode(text).tolist() == whole
    assert min(cuts) > 100


def test_llama3_has_the_published_ids(corpus_file):
    tokenizer = load_tokenizer(corpus_file("tokenizers/llama3.tiktoken"))
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (128_256, 128_000, 128_001)
    assert tokenizer.piece(128_009) == "<|eot_id|>"
    assert tokenizer.piece(128_255) == "<|reserved_special_token_250|>"
    assert tokenizer.encode("Hello world").tolist() == [9906, 1917]


def test_llama3_cuts_long_runs_where_metas_tokenizer_does(corpus_file):
    tokenizer = load_tokenizer(corpus_file("tokenizers/llama3.tiktoken"))
    text = "x" + " " * 60_000 + "y" * 30_000
    parts = ["x" + " " * 25_000, " " * 25_000, " " * 10_000 + "y" * 25_000, "y" * 5_000]
    assert "".join(parts) == text
    together = [token for part in parts for token in tokenizer.encode(part).tolist()]
    assert tokenizer.encode(text).tolist() == together


def test_training_uses_the_settings_of_llama2(trained, corpus_file):
    from sentencepiece import sentencepiece_model_pb2

    specs = []
    for path in (trained.path, corpus_file("tokenizers/llama2.model")):
        model = vars(sentencepiece_model_pb2)["ModelProto"].FromString(path.read_bytes())
        specs.append((model.trainer_spec, model.normalizer_spec))
    (trainer, normalizer), (published, published_normalizer) = specs
    same = "model_type character_coverage max_sentence_length split_by_unicode_script "
    same += "split_by_whitespace split_by_number split_digits treat_whitespace_as_suffix "
    same += "allow_whitespace_only_pieces byte_fallback max_sentencepiece_length "
    same += "unk_id bos_id eos_id pad_id"
    for name in same.split():
        assert getattr(trainer, name) == getattr(published, name), name
    for name in ("name", "add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        assert getattr(normalizer, name) == getattr(published_normalizer, name), name
    assert trained.vocab_size == 360


def test_digits_are_split_and_unknown_characters_become_bytes(trained):
    pieces = [trained.piece(token) for token in trained.encode("37 鳥").tolist()]
    assert pieces == ["▁", "3", "7", "▁", "<0xE9>", "<0xB3>", "<0xA5>"]


def test_training_is_the_same_each_time(trained, tmp_path):
    train_sentencepiece(SENTENCES, tmp_path / "again.model", vocab_size=360, num_threads=1)
    assert load_tokenizer(tmp_path / "again.model").sha256 == trained.sha256


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=9000 could not be trained"):
        train_sentencepiece(["a few words"], tmp_path / "tokenizer.model", vocab_size=9000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"there is no such file"),
        (b"", r"is no SentencePiece model"),
        (b"what is this\n" * 9, r"is no SentencePiece model"),
        (b"IQ== 0\nIg== 1\nIw", r"line 3: .* damaged"),
        (b"IQ== 0\nIg== 2\n", r"ranks leave gaps"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, complaint):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        load_tokenizer(path)


def test_a_model_without_a_beginning_is_refused(corpus_file):
    with pytest.raises(ValueError, match="has no id for the beginning or the end"):
        load_tokenizer(corpus_file("tokenizers/c4_32k.model"))


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has neither tokenizer\.model nor tokenizer\.tiktoken"):
        find_tokenizer(tmp_path)
