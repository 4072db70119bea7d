"""Two datasets are one where they give the same samples, wherever they lie."""

import dataclasses

from llama_jax.config import DataConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.data.identity import Identity, differences
from llama_jax.data.shards import read_manifest


def identity_of(directory, *mixture):
    config = DataConfig(directory=str(directory), mixture=mixture, seq_len=16)
    return open_dataset(config, vocab_size=50_000, batch_size=2).identity


def test_the_documents_tell_not_the_folder(write_dataset, numbered_documents):
    one = write_dataset({"books": numbered_documents([9, 5, 12])}, name="one")
    same = write_dataset({"books": numbered_documents([9, 5, 12])}, name="same")
    assert identity_of(one) == identity_of(same)
    # As many, as long, in as large a file.
    swapped = [tokens.copy() for tokens in numbered_documents([9, 5, 12])]
    swapped[0][3], swapped[0][4] = swapped[0][4], swapped[0][3]
    other = write_dataset({"books": swapped}, name="other")
    (line,) = differences(identity_of(one), identity_of(other))
    assert line.startswith("source 'books': 3 documents of 26 tokens (")
    assert line.endswith("weight 1")


def test_the_order_of_sources_tells_too(write_dataset, numbered_documents):
    documents = numbered_documents([9, 9])
    directory = write_dataset({"books": documents, "code": documents})
    there, back = (("books", 1.0), ("code", 1.0)), (("code", 1.0), ("books", 1.0))
    lines = differences(identity_of(directory, *there), identity_of(directory, *back))
    assert lines == ["order of sources: books, code -> code, books"]


def test_an_identity_survives_json(write_dataset, numbered_documents):
    identity = identity_of(write_dataset({"books": numbered_documents([9, 5])}))
    assert Identity.from_json(identity.to_json()) == identity
    other = dataclasses.replace(identity, tokenizer="b" * 64)
    assert differences(identity, other) == [f"tokenizer: {identity.tokenizer[:12]} -> {'b' * 12}"]


def test_a_manifest_of_before_hashes_is_read(write_dataset, numbered_documents):
    folder = write_dataset({"books": numbered_documents([9, 5])}) / "books"
    manifest = read_manifest(folder)
    digest = manifest.splits["train"].shards[0].sha256
    path = folder / "source.json"
    path.write_text(path.read_text().replace(f',\n          "sha256": "{digest}"', ""))
    assert read_manifest(folder).splits["train"].shards[0].sha256 == ""
