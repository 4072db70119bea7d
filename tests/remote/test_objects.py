"""Objects are whole or absent, are written on conditions, and survive a store that often fails."""

import types

import pytest

from llama_jax.remote.objects import ABSENT, Objects, StorageError, Url, is_remote, located
from tests.remote.stores import STORES, open_store


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    with open_store(request.param, tmp_path) as store:
        yield store


@pytest.fixture
def objects(store):
    return Objects(store.url)


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/a/b", "s3:/bucket/run"])
def test_a_url_is_told_from_a_path_even_after_pathlib(tmp_path, url):
    assert is_remote(url) and is_remote(tmp_path.__class__(url))
    assert str(located(tmp_path.__class__(url)) / "x") == url.replace(":/b", "://b") + "/x"
    assert not is_remote(tmp_path) and not is_remote("gs/bucket") and not is_remote("s3:")


def test_objects_are_listed_below_their_place_alone(store, objects):
    objects.write_all([(name, name.encode()) for name in ("b", "a/1", "checkpoints/5/x")])
    Objects(Url(f"{store.url}ner")).write("c", b"3")
    Objects(store.url.parent).write("l", b"4")
    assert objects.names() == ["a/1", "b", "checkpoints/5/x"]
    assert objects.names(skip="checkpoints/") == ["a/1", "b"]
    assert list(objects.read_all(["b", "none", "a/1"])) == [b"b", None, b"a/1"]
    objects.delete(["b", "none"])
    assert objects.names() == ["a/1", "checkpoints/5/x"] and objects.read("b") is None


def test_what_a_console_makes_for_a_folder_is_no_object(store, objects):
    objects.write_all([("a/1", b"1"), ("a/", b" "), ("folder/", b" ")])
    assert objects.names() == ["a/1"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b", "/etc/passwd"])
def test_an_object_whose_name_leads_out_of_a_folder_is_refused(tmp_path, monkeypatch, name):
    class Hostile:
        def list(self, span):
            return types.SimpleNamespace(result=lambda: [name.encode(), b"config.json"])

    objects = Objects(Url("s3://bucket/run"))
    monkeypatch.setattr(objects, "_store", Hostile())
    with pytest.raises(StorageError, match="which is no path"):
        objects.names()


def test_a_write_on_a_condition_is_done_only_while_it_holds(objects):
    mine = objects.replace("lease", b"mine", ABSENT)
    assert mine and objects.replace("lease", b"theirs", ABSENT) is None
    assert objects.generation("lease") == mine
    newer = objects.replace("lease", b"again", mine)
    assert newer and objects.replace("lease", b"late", mine) is None
    assert objects.read("lease") == b"again"
    objects.replace("lease", None, newer)
    assert objects.read("lease") is None and objects.generation("lease") == ABSENT


def test_every_tenth_request_may_fail(store, objects):
    store.gateway.fails = lambda number: number % 10 == 0
    contents = {f"{number:02}": bytes([number]) * 100 for number in range(50)}
    objects.write_all(contents.items())
    names = objects.names()
    assert dict(zip(names, objects.read_all(names), strict=True)) == contents
    assert store.gateway.failed >= 10


def test_a_bucket_that_is_not_there_is_named(store):
    url = Url(f"{str(store.url)[:5]}nowhere/run")
    with pytest.raises(StorageError, match=rf"{url}/a could not be written: NOT_FOUND"):
        Objects(url).write("a", b"5")


def test_a_file_is_fetched_in_pieces_or_not_at_all(objects, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_jax.remote.objects._PIECE_BYTES", 7)
    content = bytes(range(100))
    objects.write("shard", content)
    objects.fetch("shard", tmp_path / "shard", 100)
    assert (tmp_path / "shard").read_bytes() == content
    with pytest.raises(StorageError, match=r"shard (has 100 bytes, not 103|could not be read)"):
        objects.fetch("shard", tmp_path / "other", 103)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["shard"]
