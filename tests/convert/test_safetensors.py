"""Our writer of safetensors, read back by the format's own library."""

import hashlib
import io
import json
import zlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from llama_jax.convert.result_folder import Journal, Unfinished
from llama_jax.convert.safetensors import plan_shards, write
from llama_jax.convert.safetensors_reader import read_header
from llama_jax.convert.stored import ITEM_BYTES, array_pieces, numpy_dtype

RNG = np.random.default_rng(0)
TENSORS = {
    "first": RNG.standard_normal((7, 5), dtype=np.float32),
    "a.transposed.view": RNG.standard_normal((4, 6), dtype=np.float32).T,
    "vector": RNG.standard_normal(3, dtype=np.float32),
    "ünïcode": RNG.standard_normal((2, 2, 2), dtype=np.float32),
}
SHAPES = {name: tensor.shape for name, tensor in TENSORS.items()}


def new_folder(path) -> Unfinished:
    return Unfinished(path, Journal(io.BytesIO(), None))


def written(folder, *, dtype="float32", max_shard_bytes=1 << 20) -> list[tuple[str, int]]:
    def read(name):
        return array_pieces(TENSORS[name], dtype, name)

    sizes = []
    write(
        new_folder(folder),
        SHAPES,
        read,
        dtypes=dict.fromkeys(SHAPES, dtype),
        max_shard_bytes=max_shard_bytes,
        on_tensor=lambda *tensor: sizes.append(tensor),
    )
    return sizes


def test_float32_comes_back_bit_for_bit(tmp_path):
    written(tmp_path)
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], tensor)


def test_bfloat16_is_rounded_to_nearest(tmp_path):
    written(tmp_path, dtype="bfloat16")
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        assert file.get_slice("first").get_dtype() == "BF16"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    for name, tensor in TENSORS.items():
        start, end = header[name]["data_offsets"]
        data = path.read_bytes()[8 + length :][start:end]
        bits = np.frombuffer(data, ml_dtypes.bfloat16).reshape(tensor.shape)
        np.testing.assert_array_equal(bits, tensor.astype(ml_dtypes.bfloat16))


def test_pytorch_readers_find_their_mark(tmp_path):
    written(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_data_begins_at_a_multiple_of_eight_bytes(tmp_path):
    written(tmp_path)
    length = int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert length % 8 == 0


def test_large_models_are_split_and_indexed(tmp_path):
    sizes = dict(written(tmp_path, max_shard_bytes=150))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert index["metadata"]["total_size"] == sum(sizes.values()) == 4 * (35 + 24 + 3 + 8)
    assert index["weight_map"].keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)


@pytest.mark.parametrize(
    ("max_shard_bytes", "dealt"),
    [
        pytest.param(280, [4], id="exactly full"),
        pytest.param(279, [3, 1], id="a byte too small"),
        pytest.param(1, [1, 1, 1, 1], id="a tensor larger than a file has one of its own"),
    ],
)
def test_shards_are_filled_in_order(max_shard_bytes, dealt):
    shards = plan_shards(SHAPES, dict.fromkeys(SHAPES, "float32"), max_shard_bytes)
    assert [len(names) for names in shards.values()] == dealt
    assert [name for names in shards.values() for name in names] == list(SHAPES)


def test_a_tensor_is_read_only_when_its_turn_comes(tmp_path):
    events = []
    dtypes = dict.fromkeys(SHAPES, "float32")

    def read(name):
        events.append(("read", name))
        yield from array_pieces(TENSORS[name], "float32", name)

    def note(name, size):
        events.append(("written", name))

    write(
        new_folder(tmp_path),
        SHAPES,
        read,
        dtypes=dtypes,
        max_shard_bytes=1 << 20,
        on_tensor=note,
    )
    assert events == [(what, name) for name in SHAPES for what in ("read", "written")]


def test_digests_are_those_of_files_and_tensors(tmp_path):
    def read(name):
        return array_pieces(TENSORS[name], "bfloat16", name)

    dtypes = dict.fromkeys(SHAPES, "bfloat16")
    files, checksums = write(new_folder(tmp_path), SHAPES, read, dtypes=dtypes, max_shard_bytes=80)
    assert len(files) > 1
    for name, entry in files.items():
        data = (tmp_path / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name, tensor in TENSORS.items():
        assert checksums[name] == zlib.crc32(tensor.astype(ml_dtypes.bfloat16).tobytes())


def test_several_dtypes_stand_side_by_side_and_begin_where_they_may(tmp_path):
    dtypes = dict.fromkeys(SHAPES, "bfloat16") | {"vector": "float32"}

    def read(name):
        return array_pieces(TENSORS[name], dtypes[name], name)

    write(new_folder(tmp_path), SHAPES, read, dtypes=dtypes, max_shard_bytes=1 << 20)
    loaded = load_file(tmp_path / "model.safetensors")
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(loaded[name], tensor.astype(numpy_dtype(dtypes[name])))
    for stored in read_header(tmp_path / "model.safetensors"):
        assert stored.offset % ITEM_BYTES[stored.dtype] == 0
