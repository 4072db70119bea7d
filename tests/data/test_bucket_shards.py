"""Shards in a bucket give the samples that they give on a disk, and come when they are read."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from llama_jax.data.dataset import open_dataset
from llama_jax.remote.dataset import local_dataset
from llama_jax.remote.objects import Objects, StorageError
from tests.remote.stores import STORES, open_store
from tests.train.conftest import corpus  # noqa: F401 (a fixture)
from tests.train.tiny_run import tiny_config


@pytest.fixture(params=STORES)
def store(request, tmp_path, corpus):  # noqa: F811
    with open_store(request.param, tmp_path) as store:
        files = [path for path in corpus.rglob("*") if path.is_file()]
        named = ((path.relative_to(corpus).as_posix(), path.read_bytes()) for path in files)
        Objects(store.url).write_all(named)
        yield store


def dataset(directory):
    data = dataclasses.replace(tiny_config().data, directory=local_dataset(str(directory)))
    return open_dataset(data, vocab_size=64, batch_size=4)


def test_samples_are_those_of_the_disk_and_shards_come_when_they_are_read(store, corpus):  # noqa: F811
    remote, local = dataset(store.url), dataset(corpus)
    folder = Path(local_dataset(str(store.url)))
    assert not list(folder.rglob("*.array_record-*"))
    for got, expected in zip(remote.batch(0), local.batch(0), strict=True):
        assert np.array_equal(got, expected)
    fetched = {path.name: path.read_bytes() for path in folder.rglob("*.array_record-*")}
    shards = {path.name: path.read_bytes() for path in corpus.rglob("*.array_record-*")}
    assert 0 < len(fetched) < len(shards) and fetched.items() <= shards.items()


def test_shards_of_a_source_that_was_built_anew_are_fetched_anew(store):
    dataset(store.url).batch(0)
    folder, objects = Path(local_dataset(str(store.url))), Objects(store.url)
    before = sorted(path for path in folder.rglob("*.array_record-*"))
    source = before[0].parent.name
    objects.write(f"{source}/source.json", objects.read(f"{source}/source.json") + b"\n")
    local_dataset(str(store.url))
    after = sorted(path for path in folder.rglob("*.array_record-*"))
    assert after == [path for path in before if path.parent.name != source]


def test_a_shard_that_is_missing_in_the_bucket_is_named(store):
    remote, objects = dataset(store.url), Objects(store.url)
    shards = [name for name in objects.names() if ".array_record-" in name]
    objects.delete(shards)
    with pytest.raises(StorageError, match=r"array_record-\d+-of-\d+ (could not be read|has)"):
        remote.batch(0)
