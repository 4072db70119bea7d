"""A run in a bucket converts as its copy on a disk does, bit for bit, and in pieces."""

import json
import shutil

import numpy as np
import pytest

from llama_jax.checkpoint import bucket
from llama_jax.checkpoint.checkpointer import Checkpointer
from llama_jax.checkpoint.layer_reader import SavedArray
from llama_jax.cli.main import main
from llama_jax.remote.objects import Objects
from tests.infer.saved_run import CONFIG, random_params, write_run
from tests.remote.stores import STORES, open_store


@pytest.fixture(params=STORES)
def url(request, tmp_path, monkeypatch, one_device):
    """A run in a bucket, two layers a piece; its copy on a disk is `tmp_path / "run"`."""
    write_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    monkeypatch.setattr(bucket, "_CHUNK_BYTES", 10_000)
    with open_store(request.param, tmp_path) as store:
        _, params = random_params(CONFIG.model, CONFIG.compute, scale=0.5)
        with Checkpointer(store.url / "checkpoints") as checkpointer:
            checkpointer.save(10, {"params": params}, {"step": 10, "tokens": 1280})
        for name in ("config.json", "tokenizer.model"):
            Objects(store.url).write(name, (tmp_path / "run" / name).read_bytes())
        objects = Objects(store.url / "checkpoints")
        for name in objects.names():
            path = tmp_path / "run/checkpoints" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects.read(name) or b"")
        yield store.url


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def certificate(folder):
    said = json.loads((folder / "certificate.json").read_text())
    return {name: entry["sha256"] for name, entry in said["files"].items()}, said["tensors"]


def test_an_export_from_a_bucket_has_the_bytes_of_one_from_a_disk(url, tmp_path):
    assert convert("to-hf", url / "checkpoints/5", tmp_path / "far") == 2
    assert convert("to-hf", url / "checkpoints/10", tmp_path / "far") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "near") == 0
    far, near = (certificate(tmp_path / name) for name in ("far", "near"))
    assert [name for name in far[0] if far[0][name] != near[0][name]] == []
    assert far == near
    assert convert("check", url, tmp_path / "far") == 0
    assert (tmp_path / "far/tokenizer.json").is_file()


def test_an_object_that_changed_is_refused_and_nothing_is_left(url, tmp_path, capfd):
    objects = Objects(url / "checkpoints/10")
    name = next(name for name in objects.names() if "params.blocks.mlp.gate/c" in name)
    content = bytearray(objects.read(name) or b"")
    content[7] ^= 1
    objects.write(name, bytes(content))
    assert convert("to-hf", url, tmp_path / "out") != 0
    assert f"{name} is not what its checkpoint's manifest says" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_a_stack_one_piece_is_held_whatever_its_depth(url, monkeypatch):
    shelf = bucket.Bucket(url / "checkpoints")
    array = SavedArray(url / "checkpoints/10", shelf.manifest(10), "params.blocks.mlp.gate")
    (whole,) = {array.shape}
    piece = array._open().chunk_layout.read_chunk.shape
    # Of pieces of several layers, as many threads may hold one each.
    pieces = min(3, -(-whole[0] // piece[0])) if piece[0] > 1 else 1
    assert array.bytes_at_once == 4 * np.prod(whole[1:]) * piece[0] * pieces
    expected = np.asarray(array)
    for layer in (1, 0, 1):
        np.testing.assert_array_equal(array[layer], expected[layer])
