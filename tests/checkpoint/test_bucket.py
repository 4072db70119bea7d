"""A checkpoint in a bucket is complete or absent, and comes back bit for bit on any mesh."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest
from jax.sharding import PartitionSpec as P

from llama_jax.checkpoint import Checkpointer, CheckpointError, bucket
from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint.damage import find_newest_good, set_aside
from llama_jax.checkpoint.layer_reader import saved_arrays
from llama_jax.config import CheckpointConfig, MeshConfig
from llama_jax.remote.objects import Objects, StorageError
from llama_jax.sharding import make_mesh
from tests.checkpoint.test_checkpointer import (
    KEEP_ALL,
    META,
    abstract,
    assert_same_bits,
    make_state,
    save,
)
from tests.remote.stores import STORES, open_store


@pytest.fixture(params=STORES)
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket, "_CHUNK_BYTES", 300)  # so that arrays are of several objects
    with open_store(request.param, tmp_path) as store:
        yield store


@pytest.fixture
def url(store):
    return store.url / "checkpoints"


def flip(objects: Objects, name: str) -> None:
    """Changes a bit of an object."""
    content = objects.read(name)
    objects.write(name, bytes([content[0] ^ 1]) + content[1:])


def copy_to(objects: Objects, folder) -> None:
    """As `gsutil cp -r` does."""
    for name in objects.names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(objects.read(name))


@pytest.mark.parametrize("each", [0, pytest.param(10, marks=pytest.mark.slow)])
def test_a_state_comes_back_bit_for_bit_on_another_mesh_though_requests_fail(store, url, each):
    store.gateway.fails = lambda number: bool(each) and number % each == 0
    state = make_state(3, make_mesh(MeshConfig(fsdp=2, context=2, tensor=2)))
    with Checkpointer(url, KEEP_ALL) as checkpointer:
        checkpointer.save(3, state, META)
        checkpointer.wait()
        pieces = [name for name in Objects(url / "3").names() if "/mu/embed/table/" not in name]
        assert len(pieces) > len(jax.tree.leaves(state))
        other = make_mesh(MeshConfig(fsdp=8))
        for wanted in (abstract(make_state(3)), abstract(state, other, P(None, "fsdp"))):
            restored, meta = checkpointer.restore(3, wanted)
            assert_same_bits(restored, make_state(3))
            assert meta == META
        params = {"params": abstract(make_state(3))["params"]}
        restored, _ = checkpointer.restore(3, params, partial=True)
        assert_same_bits(restored["params"], make_state(3)["params"])
    assert bool(store.gateway.failed) == bool(each)


def test_a_checkpoint_counts_when_its_manifest_is_there(url):
    def fail() -> None:
        raise StorageError("the small files could not be written")

    with Checkpointer(url, KEEP_ALL) as checkpointer:
        save(checkpointer, 1)
    checkpointer = Checkpointer(url, KEEP_ALL, before_commit=fail)
    checkpointer.save(2, make_state(2), META)
    with pytest.raises(CheckpointError, match=r"checkpoints/2 was not saved: the small .* Step 1 "):
        checkpointer.close()
    assert "2" in {name.partition("/")[0] for name in Objects(url).names()}  # as a kill leaves it
    reader = Checkpointer(url, read_only=True)
    assert reader.steps() == [1] and find_newest_good(url) == (1, {})
    with Checkpointer(url, KEEP_ALL) as checkpointer:
        assert {name.partition("/")[0] for name in Objects(url).names()} == {"1"}
        save(checkpointer, 2)
        assert checkpointer.steps() == [1, 2]


def test_a_changed_object_is_found_and_the_checkpoint_kept_aside(url):
    with Checkpointer(url, KEEP_ALL) as checkpointer:
        save(checkpointer, 1, 2)
        flip(Objects(url / "2"), "state/params.embed.table/c.0.0")
        with pytest.raises(CheckpointError, match=r"table/c\.0\.0 has CRC-32 .* Step 1 is the new"):
            checkpointer.restore(2, abstract(make_state(2)))
        Objects(url / "1").delete(["meta.json"])
        assert checkpointer.problems(1) == ["meta.json is missing"]
        assert find_newest_good(url)[0] is None
        before = {name: Objects(url / "2").read(name) for name in Objects(url / "2").names()}
        set_aside(url, 2)
        aside = Objects(url / "2.damaged")
        assert {name: aside.read(name) for name in aside.names()} == before
        save(checkpointer, 2)
        set_aside(url, 2)
        assert checkpointer.steps() == [1] and Objects(url / "2.damaged.2").names()


def test_old_checkpoints_are_deleted_by_the_rule(url):
    with Checkpointer(url, CheckpointConfig(keep_last=1, keep_every_steps=2)) as checkpointer:
        save(checkpointer, 1, 2, 3, 4)
        assert checkpointer.steps() == [2, 4]
        with pytest.raises(ValueError, match=r"step=4 exists in .*://bucket/run/checkpoints"):
            checkpointer.save(4, make_state(4), META)
    assert {name.partition("/")[0] for name in Objects(url).names()} == {"2", "4"}


def test_a_checkpoint_may_be_copied_to_a_disk_and_from_it(url, tmp_path):
    with Checkpointer(url, KEEP_ALL) as checkpointer:
        save(checkpointer, 1)
    copy_to(Objects(url), tmp_path / "disk")
    with Checkpointer(tmp_path / "disk", KEEP_ALL) as checkpointer:
        assert_same_bits(checkpointer.restore(1, abstract(make_state(1)))[0], make_state(1))
        save(checkpointer, 2)
    files = [path for path in (tmp_path / "disk" / "2").rglob("*") if path.is_file()]
    place = Objects(url / "2")
    for path in files:
        place.write(path.relative_to(tmp_path / "disk" / "2").as_posix(), path.read_bytes())
    shutil.rmtree(tmp_path / "disk")
    (tmp_path / "disk").write_text(f"{url}\n")  # a file may say where the checkpoints are
    with Checkpointer(tmp_path / "disk", read_only=True) as checkpointer:
        assert checkpointer.directory == url and checkpointer.steps() == [1, 2]
        assert_same_bits(checkpointer.restore(2, abstract(make_state(2)))[0], make_state(2))


def test_a_layer_of_a_checkpoint_in_a_bucket_is_read_alone(url):
    with Checkpointer(url, KEEP_ALL) as checkpointer:
        save(checkpointer, 1)
    gate = dict(saved_arrays(url / "1"))["mlp.gate"]
    assert (gate[1] == make_state(1)["params"]["mlp"]["gate"].get_value()[1]).all()
    assert gate.layer_file(1) is None


def test_a_manifest_waits_for_every_process_and_lists_the_pieces_of_all(url, monkeypatch):
    process = threading.local()
    monkeypatch.setattr(jax, "process_index", lambda: process.index)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(bucket, "_POLL_SECONDS", 0.01)
    arrays = {"first": jax.numpy.arange(4.0), "second": jax.numpy.arange(6)}

    def save_as(index: int, name: str) -> None:
        process.index = index
        shelf = bucket.Bucket(url)
        shelf.begin(1, {name: arrays[name]})
        shelf.write(1)
        shelf.finish(1, "{}", manifests.array_table(arrays))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(save_as, 0, "first")
        assert not first.done() and bucket.Bucket(url).complete() == []
        pool.submit(save_as, 1, "second").result()
        first.result()
    files = bucket.Bucket(url).manifest(1).files
    assert {"state/first/c.0", "state/second/c.0", "state/first/zarr.json"} <= files.keys()
    assert not [name for name in Objects(url / "1").names() if "share" in name]
