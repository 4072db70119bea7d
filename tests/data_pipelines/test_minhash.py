"""Signatures of documents estimate how many n-grams two texts share."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.stages import minhash
from data_pipelines.stages.minhash import Signer, plain, sign
from llama_jax.config import MinHash

GOLDEN = [323017291813744252, 9695223200249325698, 1355056930054488434]


def words(count, *, seed=0):
    random = np.random.default_rng(seed)
    return ["w" + str(number) for number in random.integers(0, 10**6, count)]


def ngrams(text, n):
    found = plain(text).split()
    return {tuple(found[at : at + n]) for at in range(max(len(found) - n + 1, 1))}


def jaccard(a, b, n=5):
    a, b = ngrams(a, n), ngrams(b, n)
    return len(a & b) / len(a | b)


def agreement(a, b, config):
    minima, _ = Signer(config).sign([a, b])
    return np.mean(minima[0] == minima[1])


@pytest.mark.parametrize("n", [1, 5, 13])
@pytest.mark.parametrize("edits", [1, 10, 60])
def test_the_share_of_equal_minima_is_the_jaccard_similarity(n, edits):
    config = MinHash(ngram=n, bands=250, rows=16)
    text = words(600)
    other = list(text)
    for number in range(edits):
        other[number * 10] = f"edited{number}"
    text, other = " ".join(text), " ".join(other)
    true = jaccard(text, other, n)
    sigma = np.sqrt(true * (1 - true) / 4000)
    assert abs(agreement(text, other, config) - true) <= 4 * sigma


def test_orders_are_independent_of_one_another():
    config = MinHash(bands=16, rows=16)
    shares = []
    for seed in range(0, 600, 3):
        shared, *own = words(60, seed=seed), words(30, seed=seed + 1), words(30, seed=seed + 2)
        a, b = (" ".join(shared + some) for some in own)
        shares.append(agreement(a, b, config) - jaccard(a, b))
    true = jaccard(a, b)
    assert abs(np.mean(shares)) < 4 * np.sqrt(true * (1 - true) / 256 / len(shares))
    assert 0.85 < np.std(shares) / np.sqrt(true * (1 - true) / 256) < 1.15


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Don't  STOP--now!\n\tÉtude", b"don t stop now \xc3\xa9tude"),
        ("“Straße”…№5 €3 ΟΔΟΣ", "straße 5 3 οδοσ".encode()),
        ("hindi हिन्दी", "hindi हिन्दी".encode()),
        ("中文 和かな。ab", "中 文 和 か な ab".encode()),
        ("ไทย", "ไ ท ย".encode()),
        ("x中y\U00020000z İ", "x 中 y\U00020000z i".encode()),
        ("한국어 말", "한국어 말".encode()),
        ("a\u00a0b\u2003c\u0085d\u2028e", b"a b c d e"),
        ("", b""),
    ],
)
def test_words_are_in_lower_case_and_end_at_punctuation(text, normal):
    assert b" ".join(plain(text).split()) == normal


def test_ascii_text_is_normalised_as_any_other():
    text = "".join(map(chr, range(128)))
    assert plain(text).split() == plain(text + "é").replace("é".encode(), b"").split()


@pytest.mark.parametrize(
    "other", ["x x x x x", "hello worle", "world hello", "hello", "helloworld"]
)
def test_texts_of_few_words_are_told_apart(other):
    minima, num_words = Signer(MinHash()).sign(["Hello, world!", other, "hello world", "?!", ""])
    assert not np.any(minima[0] == minima[1])
    assert np.array_equal(minima[0], minima[2])
    assert num_words.tolist() == [2, len(other.split()), 2, 0, 0]


@pytest.mark.parametrize("size", [5, 6, 12])
def test_every_word_of_a_text_counts(size):
    text = words(size)
    others = [" ".join([*text[:at], "changed", *text[at + 1 :]]) for at in range(size)]
    minima, _ = Signer(MinHash()).sign([" ".join(text), *others])
    assert len(np.unique(minima, axis=0)) == size + 1


@pytest.mark.parametrize("size", [7, 8, 9, 16, 17, 127, 500])
def test_words_differ_by_any_of_their_bytes_and_their_length(size):
    word = "a" * size
    changed = [word[:at] + "b" + word[at + 1 :] for at in range(min(size, 128))]
    texts = [word, word + "a", *changed]
    minima, _ = Signer(MinHash(ngram=1, bands=1, rows=1)).sign(texts)
    assert len(np.unique(minima)) == len(texts)


def test_a_signature_does_not_depend_on_its_batch():
    texts = [" ".join(words(size, seed=size)) for size in (3, 70_000, 0, 5, 900, 4, 40_000)]
    together, _ = Signer(MinHash()).sign(texts)
    for text, minima in zip(texts, together, strict=True):
        assert np.array_equal(Signer(MinHash()).sign([text]).minima[0], minima)


def test_all_of_a_long_text_counts():
    text = " ".join(words(120_000))
    half = len(text) // 2
    minima, _ = Signer(MinHash()).sign([text, text[:half], text[half:]])
    assert not np.array_equal(minima[0], minima[1])
    assert np.array_equal(minima[0] <= minima[1], np.ones(112, bool))
    assert np.mean(minima[0] == np.minimum(minima[1], minima[2])) > 0.9


def test_a_signature_is_the_same_on_every_machine():
    minima, _ = Signer(MinHash()).sign(["The quick brown fox jumps over the lazy dog."])
    assert minima[0, [0, 55, 111]].tolist() == GOLDEN


def test_one_endless_line_takes_time_in_proportion():
    for text in ("a" * (1 << 22), "." * (1 << 22), "\u4e00" * (1 << 20)):
        _, num_words = Signer(MinHash()).sign([text])
        assert num_words[0] <= len(text)


def test_rows_of_a_file_are_documents_with_words(tmp_path):
    texts = ["one two three", "?", " ".join(words(300))]
    digests = [bytes([number]) * 32 for number in range(3)]
    bucket = pa.table({"digest": pa.array(digests, pa.binary(32)), "text": texts})
    pq.write_table(bucket, tmp_path / "documents.parquet", row_group_size=2)
    config = MinHash()
    sign(tmp_path / "documents.parquet", tmp_path / "signatures.parquet", config)
    table = pq.read_table(tmp_path / "signatures.parquet")
    assert table.schema.names == minhash.signature_schema(config).names
    assert table.column("digest").to_pylist() == [digests[0], digests[2]]
    assert table.column("length").to_pylist() == [len(texts[0]), len(texts[2])]


def test_a_bands_key_is_shared_where_all_its_rows_are(tmp_path):
    text = words(200)
    texts = [" ".join(text), " ".join(text[:190] + words(10, seed=1))]
    bucket = {"digest": pa.array([b"a" * 32, b"b" * 32], pa.binary(32)), "text": texts}
    pq.write_table(pa.table(bucket), tmp_path / "documents")
    config = MinHash(bands=50, rows=4)
    sign(tmp_path / "documents", tmp_path / "signatures", config)
    table = pq.read_table(tmp_path / "signatures")
    minima, _ = Signer(config).sign(texts)
    equal = (minima[0] == minima[1]).reshape(50, 4).all(axis=1)
    assert 0 < np.sum(equal) < 50
    for band, shared in enumerate(equal):
        a, b = table.column(minhash.band_column(band)).to_pylist()
        assert (a == b) == shared


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ngram": 0}, r"near_duplicates\.ngram must be positive"),
        ({"bands": 0}, r"near_duplicates\.bands must be positive"),
        ({"threshold": 1.5}, r"near_duplicates\.threshold must be in \[0, 1\]"),
        ({"seed": -1}, r"near_duplicates\.seed must be zero or more"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        MinHash(**change)
