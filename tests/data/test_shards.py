"""What is written is what TensorFlow Datasets and we read; what is damaged is refused by name."""

import json
import subprocess
import sys

import numpy as np
import pytest

from llama_jax.data import shards
from llama_jax.data.shard_writer import SplitWriter
from llama_jax.data.shards import SplitReader, decode_id, encode_record, read_manifest

LENGTHS = [5, 300, 2, 70, 128, 2000, 3, 9] * 3


@pytest.fixture
def dataset(write_dataset, numbered_documents):
    documents = numbered_documents(LENGTHS)
    return documents, write_dataset({"books": documents}, {"books": documents[:2]})


@pytest.mark.parametrize("vocab_size", [50_000, 128_256], ids=["16 bits", "32 bits"])
def test_tensorflow_datasets_reads_our_shards(write_dataset, numbered_documents, vocab_size):
    documents = numbered_documents(LENGTHS)
    documents[0][1] = vocab_size - 1
    directory = write_dataset({"books": documents}, vocab_size=vocab_size)
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(directory / "books").as_data_source("train")
    assert len(source) == len(documents)
    for number, document in enumerate(documents):
        assert source[number]["id"] == f"books/train/{number}".encode()
        np.testing.assert_array_equal(source[number]["tokens"], document)


def test_nothing_imports_tensorflow(dataset):
    _, directory = dataset
    code = (
        "import sys, tensorflow_datasets as tfds;"
        f"d = tfds.builder_from_directory({str(directory / 'books')!r});"
        "d.as_data_source('heldout')[1];"
        "import llama_jax.data.dataset, llama_jax.data.shard_writer, llama_jax.data.held_out;"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_needs_no_tensorflow_datasets_and_no_jax_arrays(dataset):
    _, directory = dataset
    code = (
        "import sys; from pathlib import Path; from llama_jax.data.shards import *;"
        f"folder = Path({str(directory / 'books')!r});"
        "reader = SplitReader(folder, read_manifest(folder), 'train');"
        "assert len(list(reader.read_tokens([0, 5]))) == 2;"
        "assert not {'tensorflow_datasets', 'grain', 'jax'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documents_are_found_by_number_across_shards(dataset):
    documents, directory = dataset
    manifest = read_manifest(directory / "books")
    assert len(manifest.splits["train"].shards) > 2
    reader = SplitReader(directory / "books", manifest, "train")
    wanted = [23, 0, 7, 8, 22, 5]
    found = dict(reader.read_tokens(wanted))
    assert list(found) == sorted(wanted)
    for number in wanted:
        np.testing.assert_array_equal(found[number], documents[number])
        assert reader.document_id(number) == f"books/train/{number}"
    assert reader.num_tokens_of.tolist() == LENGTHS
    assert reader.text_bytes_of.tolist() == [3 * length for length in LENGTHS]


@pytest.mark.parametrize("size", [1, 63, 64, 127, 128, 16_383, 16_384, 70_000])
def test_records_are_protocol_buffers_at_every_length_of_varint(size):
    from tensorflow_datasets.proto import tf_example_pb2

    tokens = np.arange(size, dtype=np.uint16)
    record = encode_record("a/ü" * size, tokens)
    feature = tf_example_pb2.Example.FromString(record).features.feature
    assert feature["id"].bytes_list.value == [("a/ü" * size).encode()]
    assert feature["tokens"].bytes_list.value == [tokens.tobytes()]
    assert decode_id(record) == "a/ü" * size


def test_windows_are_bounded_in_documents_and_in_tokens(write_dataset, monkeypatch):
    monkeypatch.setattr("llama_jax.data.shard_writer.WINDOW_DOCUMENTS", 4)
    monkeypatch.setattr("llama_jax.data.shard_writer.WINDOW_TOKENS", 100)
    documents = [np.arange(size) + 1 for size in (10, 10, 10, 10, 10, 95, 300, 10)]
    folder = write_dataset({"s": documents}) / "s"
    reader = SplitReader(folder, read_manifest(folder), "train")
    assert reader.windows.tolist() == [[0, 0], [4, 40], [6, 145], [7, 445], [8, 455]]


def test_a_truncated_shard_is_refused_by_name(dataset):
    _, directory = dataset
    shard = sorted((directory / "books").glob("*train*array_record*"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"{shard.name} has \d+ bytes where .* truncated"):
        read_manifest(directory / "books")


def test_a_missing_shard_is_refused_by_name(dataset):
    _, directory = dataset
    shard = sorted((directory / "books").glob("*train*array_record*"))[1]
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard.name} is missing"):
        read_manifest(directory / "books")


def test_a_shard_that_is_not_the_one_indexed_is_refused(dataset):
    _, directory = dataset
    first, second = sorted((directory / "books").glob("*train*array_record*"))[:2]
    manifest = read_manifest(directory / "books")
    second.write_bytes(first.read_bytes())
    number = manifest.splits["train"].shards[0].num_documents
    reader = SplitReader(directory / "books", manifest, "train")
    with pytest.raises(ValueError, match=rf"{second.name} does not have the \d+ tokens"):
        list(reader.read_tokens([number]))


def test_damaged_bytes_of_a_shard_are_refused(dataset):
    _, directory = dataset
    shard = min((directory / "books").glob("*train*array_record*"))
    data = bytearray(shard.read_bytes())
    data[200:400] = bytes(200)
    shard.write_bytes(data)
    reader = SplitReader(directory / "books", read_manifest(directory / "books"), "train")
    with pytest.raises(ValueError, match=rf"{shard.name}"):
        list(reader.read_tokens(range(8)))


def test_an_index_of_other_documents_is_refused(dataset):
    _, directory = dataset
    path = directory / "books" / "train.documents.npy"
    np.save(path, np.load(path)[:-1])
    manifest = read_manifest(directory / "books")
    with pytest.raises(ValueError, match=r"has 23 documents where source\.json says 24"):
        SplitReader(directory / "books", manifest, "train")


def test_a_later_format_is_refused(dataset):
    _, directory = dataset
    path = directory / "books" / shards.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        read_manifest(directory / "books")


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        ([1, 100, 2], r"has token 100, outside the vocabulary of 100"),
        ([1, -1, 2], r"outside the vocabulary"),
        ([1], r"has 1 tokens; 2 are the least"),
    ],
)
def test_the_writer_refuses_impossible_documents(tmp_path, tokens, complaint):
    writer = SplitWriter(tmp_path, "s", "train", vocab_size=100, shard_tokens=1000)
    with pytest.raises(ValueError, match=complaint):
        writer.add("d", np.array(tokens), text_bytes=1)
