"""Checkpoints written and read layer by layer, against Orbax's reading and writing of them."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer, CheckpointError, layers, storage
from llama_jax.checkpoint.layer_reader import saved_arrays
from llama_jax.checkpoint.layers import Layered
from llama_jax.checkpoint.manifest import FileEntry, crc32

VALUES = np.random.default_rng(0).standard_normal((3, 4, 5, 6), np.float32)
GATE = Layered(
    name="params.gate", shape=(3, 4, 5, 6), dtype="bfloat16", order=(0, 2, 3, 1), stacked=True
)


@pytest.fixture
def checkpoints(tmp_path):
    """A folder with a checkpoint of step 0, written layer by layer."""
    arrays = [GATE, *layers.fresh_adamw({"gate": GATE})]
    saving = tmp_path / "0.saving"
    saving.mkdir()
    layers.describe(saving, arrays)
    files = {}
    for layer in range(3):
        path = saving / GATE.file(layer)
        path.write_bytes(VALUES[layer].astype(ml_dtypes.bfloat16).transpose(1, 2, 0).tobytes())
        files[GATE.file(layer)] = FileEntry(size=path.stat().st_size, crc32=crc32(path))
    layers.commit(saving, tmp_path / "0", step=0, meta={"a": 1}, arrays=arrays, files=files)
    return tmp_path


def test_the_checkpointer_reads_it_and_widens_it(checkpoints):
    wanted = {
        "params": {"gate": jax.ShapeDtypeStruct(GATE.shape, jnp.float32)},
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "opt_state": {
            "1": {
                "count": jax.ShapeDtypeStruct((), jnp.int32),
                "mu": {"gate": jax.ShapeDtypeStruct(GATE.shape, jnp.float32)},
                "nu": {"gate": jax.ShapeDtypeStruct(GATE.shape, jnp.float32)},
            }
        },
    }
    with Checkpointer(checkpoints, read_only=True) as checkpointer:
        state, meta = checkpointer.restore(0, wanted)
    expected = VALUES.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(state["params"]["gate"], expected)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((state["opt_state"], state["step"])))
    assert meta == {"a": 1}


def test_half_precision_is_not_read_as_another_half(checkpoints):
    wanted = {"params": {"gate": jax.ShapeDtypeStruct(GATE.shape, jnp.float16)}}
    with (
        Checkpointer(checkpoints, read_only=True) as checkpointer,
        pytest.raises(ValueError, match=r"params\.gate: bfloat16.* -> float16"),
    ):
        checkpointer.restore(0, wanted, partial=True)


def test_a_changed_layer_is_found(checkpoints):
    path = checkpoints / "0" / GATE.file(1)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with (
        Checkpointer(checkpoints, read_only=True) as checkpointer,
        pytest.raises(CheckpointError, match=r"c\.1\.0\.0\.0 has CRC-32"),
    ):
        checkpointer.verify(0, deep=True)


def test_layers_are_read_one_by_one(checkpoints):
    ((name, array),) = saved_arrays(checkpoints / "0")
    assert (name, array.shape, array.dtype) == ("gate", (3, 4, 5, 6), "bfloat16")
    expected = VALUES.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(array[2], expected[2])
    np.testing.assert_array_equal(np.asarray(array), expected)
    file = array.layer_file(1)
    assert file is not None
    assert file.order == (0, 2, 3, 1)
    assert file.path.read_bytes() == expected[1].transpose(1, 2, 0).tobytes()


@pytest.mark.parametrize("stack_bytes", [0, 1 << 40])
def test_what_orbax_wrote_is_read_by_layers_too(tmp_path, monkeypatch, stack_bytes):
    monkeypatch.setattr(storage, "_STACK_BYTES", stack_bytes)
    with Checkpointer(tmp_path) as checkpointer:
        state = {"params": {"gate": jnp.asarray(VALUES), "norm": jnp.ones(3)}}
        checkpointer.save(1, state, {})
        checkpointer.wait()
        back, _ = checkpointer.restore(1, state)
    np.testing.assert_array_equal(back["params"]["gate"], VALUES)
    arrays = dict(saved_arrays(tmp_path / "1"))
    np.testing.assert_array_equal(arrays["gate"][1], VALUES[1])
    np.testing.assert_array_equal(np.asarray(arrays["norm"]), np.ones(3))
    assert arrays["gate"].layer_file(1) is None
    # A large stack is stored item by item, so that one of them can be read alone.
    at_once = VALUES.nbytes if stack_bytes else VALUES[0].nbytes
    assert arrays["gate"].bytes_at_once == at_once


def test_threads_read_each_piece_of_several_layers_once(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_STACK_BYTES", 1 << 40)
    stack = np.arange(12 * 4, dtype=np.float32).reshape(12, 4)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"params": {"gate": jnp.asarray(stack)}}, {})
        checkpointer.wait()
    ((_, array),) = saved_arrays(tmp_path / "1")
    opened, reads = array._open(), []

    class Counted:
        """The array in pieces of three layers, and what is read of it."""

        dtype = opened.dtype
        chunk_layout = SimpleNamespace(read_chunk=SimpleNamespace(shape=(3, 4)))

        def __getitem__(self, layers):
            reads.append(layers.start)
            return opened[layers]

    monkeypatch.setattr(array, "_store", Counted())
    assert array.bytes_at_once == 3 * 3 * 4 * 4

    def read(files):
        return [array[layer] for layer in files]

    # As files of an export are written: each thread has layers of its own, some in one piece.
    dealt = [range(4), range(4, 8), range(8, 12)]
    with ThreadPoolExecutor(3) as pool:
        got = [layer for part in pool.map(read, dealt) for layer in part]
    np.testing.assert_array_equal(got, stack)
    assert sorted(set(reads)) == [0, 3, 6, 9]
    assert len(array._pieces) <= 3
    reads.clear()
    array._pieces.clear()
    read(range(12))
    assert reads == [0, 3, 6, 9]
    assert not array._pieces
