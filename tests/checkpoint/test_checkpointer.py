"""A checkpoint is complete or absent, and comes back bit for bit on any mesh."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax.checkpoint import Checkpointer, CheckpointError
from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint.damage import find_newest_good, set_aside
from llama_jax.config import CheckpointConfig, MeshConfig
from llama_jax.sharding import make_mesh

KEEP_ALL = CheckpointConfig(keep_last=100)
META = {"step": 3, "samples": 48, "config": {"name": "tiny"}}


def make_state(seed=0, mesh=None):
    """A state with all that a real one has: Variables, moments, an integer counter, bfloat16."""
    key = jax.random.key(seed)
    table = jax.random.normal(key, (16, 8))
    gate = jax.random.normal(key, (3, 8, 24)).astype(jnp.bfloat16)
    if mesh is not None:
        table = jax.device_put(table, NamedSharding(mesh, P("tensor", "fsdp")))
        gate = jax.device_put(gate, NamedSharding(mesh, P(None, "fsdp", ("tensor", "context"))))
    params = nnx.State({"embed": {"table": nnx.Param(table)}, "mlp": {"gate": nnx.Param(gate)}})
    moments = optax.adamw(1e-3).init(params)
    moments = jax.tree.map(lambda x: x + jnp.asarray(seed + 1, x.dtype), moments)
    return {"step": jnp.int32(seed), "params": params, "opt_state": moments}


def abstract(state, mesh=None, spec=P()):
    def leaf(x):
        sharding = NamedSharding(mesh, spec if x.ndim > 1 else P()) if mesh else None
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, state)


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def checkpointer(tmp_path):
    with Checkpointer(tmp_path / "checkpoints", KEEP_ALL) as checkpointer:
        yield checkpointer


def save(checkpointer, *steps):
    for step in steps:
        checkpointer.save(step, make_state(step), META | {"step": step})
    checkpointer.wait()


def data_file(checkpointer, step):
    """The largest file of a checkpoint: where the arrays are."""
    files = (checkpointer.directory / str(step)).rglob("*")
    return max(files, key=lambda path: path.stat().st_size if path.is_file() else 0)


def test_a_state_comes_back_bit_for_bit(checkpointer):
    save(checkpointer, 3)
    state, meta = checkpointer.restore(3, abstract(make_state(3)))
    assert_same_bits(state, make_state(3))
    assert meta == META


@pytest.mark.parametrize(
    ("sizes", "devices"),
    [
        pytest.param({"fsdp": 2, "context": 2, "tensor": 2}, 8, id="the same mesh"),
        pytest.param({"fsdp": 8}, 8, id="another mesh"),
        pytest.param({"fsdp": 2, "tensor": 2}, 4, id="half the devices"),
        pytest.param({}, 1, id="one device"),
    ],
)
def test_a_state_comes_back_on_any_mesh(checkpointer, sizes, devices):
    mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
    checkpointer.save(3, make_state(3, mesh), META)
    target = make_mesh(MeshConfig(**({"fsdp": 1} | sizes)), devices=jax.devices()[:devices])
    wanted = abstract(make_state(3), target, P(None, "fsdp"))
    state, _ = checkpointer.restore(3, wanted)
    assert_same_bits(state, make_state(3))
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding == like.sharding


def test_training_on_does_not_change_what_is_being_saved(checkpointer):
    state = {"w": jnp.zeros(1 << 20)}
    update = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpointer.save(1, state, {})
    for _ in range(3):
        state = update(state)
    jax.block_until_ready(state)
    saved, _ = checkpointer.restore(1, abstract(state))
    np.testing.assert_array_equal(saved["w"], 0.0)


def test_a_save_says_what_it_cost(checkpointer):
    save(checkpointer, 3)
    timing = checkpointer.last_timing
    assert 0 < timing.blocked_seconds < timing.total_seconds
    assert timing.hash_seconds < timing.total_seconds
    assert timing.num_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(make_state(3)))
    assert str(timing).startswith("checkpoint 3: 5 kB in ")


def test_parameters_are_read_without_the_optimizer(checkpointer):
    save(checkpointer, 3)
    wanted = {"params": abstract(make_state(3))["params"]}
    state, _ = checkpointer.restore(3, wanted, partial=True)
    assert_same_bits(state["params"], make_state(3)["params"])
    with pytest.raises(ValueError, match=r"opt_state\.0\.count: int32\[\] -> \(absent\)"):
        checkpointer.restore(3, wanted)


def test_arrays_of_another_shape_are_refused_by_name(checkpointer):
    save(checkpointer, 3)
    wanted = abstract(make_state(3))
    wanted["params"]["embed"]["table"] = nnx.Param(jax.ShapeDtypeStruct((32, 8), jnp.float32))
    with pytest.raises(ValueError, match=r"embed\.table: float32\[16,8\] -> float32\[32,8\]"):
        checkpointer.restore(3, wanted)


def test_the_last_ones_and_the_multiples_are_kept(tmp_path):
    config = CheckpointConfig(every_steps=1, keep_last=2, keep_every_steps=3)
    with Checkpointer(tmp_path, config) as checkpointer:
        save(checkpointer, *range(1, 8))
        assert checkpointer.steps() == [3, 6, 7]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "6", "7"]


def test_nothing_is_deleted_before_the_next_one_is_complete(tmp_path, monkeypatch):
    config = CheckpointConfig(every_steps=1, keep_last=1)
    with Checkpointer(tmp_path, config) as checkpointer:
        save(checkpointer, 1)
        monkeypatch.setattr(Checkpointer, "_commit", lambda *_: 1 / 0)
        checkpointer.save(2, make_state(2), {})
        with pytest.raises(CheckpointError, match="Step 1 is the last good one"):
            checkpointer.wait()
        assert checkpointer.steps() == [1]


def test_a_checkpoint_is_never_overwritten(checkpointer):
    save(checkpointer, 3)
    with pytest.raises(ValueError, match="checkpoint step=3 exists"):
        checkpointer.save(3, make_state(4), META)
    assert_same_bits(checkpointer.restore(3, abstract(make_state()))[0], make_state(3))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        pytest.param(cut, r"bytes, not [\d,]+: it was cut", id="cut short"),
        pytest.param(flip, r"has CRC-32 \w{8}, not \w{8}: its content changed", id="a flipped bit"),
        pytest.param(lambda path: path.unlink(), "is missing", id="a file is gone"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(checkpointer, harm, complaint):
    save(checkpointer, 1, 2, 3)
    victim = data_file(checkpointer, 3)
    harm(victim)
    with pytest.raises(CheckpointError, match=complaint) as refusal:
        checkpointer.restore(3, abstract(make_state()))
    message = str(refusal.value)
    assert "step=3" in message
    assert victim.name in message
    assert "Step 2 is the newest good one" in message
    assert checkpointer.latest_good_step(deep=True) == 2


def test_a_manifest_lists_what_any_process_sees_however_old_the_listing_of_one_is(
    tmp_path, monkeypatch
):
    for name in ("a", "b", "c"):
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / name).write_text(name)
    whole, old = ["state/a", "state/b", "state/c"], ["state/b"]
    # The second process is shown the folder as it was: its share is no file at all.
    monkeypatch.setattr(manifests, "_inner_files", lambda _: old)
    assert manifests.scan_together(tmp_path, part=1, parts=2) is None
    monkeypatch.setattr(manifests, "_inner_files", lambda _: whole)
    files = manifests.scan_together(tmp_path, part=0, parts=2)
    assert files is not None and sorted(files) == whole

    # The first one sees less than another did, and then what was seen is not there.
    monkeypatch.setattr(manifests, "_inner_files", lambda _: whole)
    manifests.scan_together(tmp_path, part=1, parts=2)
    monkeypatch.setattr(manifests, "_inner_files", lambda _: old)
    files = manifests.scan_together(tmp_path, part=0, parts=2)
    assert files is not None and sorted(files) == whole
    monkeypatch.setattr(manifests, "_inner_files", lambda _: whole)
    manifests.scan_together(tmp_path, part=1, parts=2)
    (tmp_path / "state/c").unlink()
    with pytest.raises(CheckpointError, match="c was written and is not there"):
        manifests.scan_together(tmp_path, part=0, parts=2)


def test_sizes_alone_are_checked_without_reading_the_data(checkpointer):
    save(checkpointer, 1)
    flip(data_file(checkpointer, 1))
    checkpointer.verify(1)
    with pytest.raises(CheckpointError, match="There is no earlier good one"):
        checkpointer.verify(1, deep=True)


def test_a_missing_checkpoint_is_refused_with_those_that_are_there(checkpointer):
    with pytest.raises(CheckpointError, match="there is none yet"):
        checkpointer.restore(7, {})
    save(checkpointer, 1, 2)
    with pytest.raises(CheckpointError, match=r"No checkpoint of step 7 .* there are \[1, 2\]"):
        checkpointer.restore(7, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 3}', '{"step":3,"arrays":{},"files":3}'])
def test_an_unreadable_manifest_is_refused_by_name(checkpointer, text):
    save(checkpointer, 2, 3)
    (checkpointer.directory / "3" / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"step=3 .*manifest\.json cannot be read.*Step 2 is"):
        checkpointer.restore(3, abstract(make_state()))


def test_leftovers_of_killed_saves_are_cleared_and_nothing_else(tmp_path):
    with Checkpointer(tmp_path, KEEP_ALL) as checkpointer:
        save(checkpointer, 1)
    foreign = ["notes", "100", "7.saving.backup", "my.saving"]
    for name in ["2.saving", "1000.deleting", *foreign]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    (tmp_path / "5.saving").write_text("a file, not a folder")
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=1)) as checkpointer:
        assert checkpointer.steps() == [1]
        save(checkpointer, 2)
        assert checkpointer.steps() == [2]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(["2", "5.saving", *foreign])
    assert all((tmp_path / name / "file").read_text() == "mine" for name in foreign)


def test_reading_changes_nothing(tmp_path):
    with Checkpointer(tmp_path / "none", read_only=True) as checkpointer:
        assert checkpointer.latest_step() is None
    (tmp_path / "2.saving").mkdir()
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == []
    assert [path.name for path in tmp_path.iterdir()] == ["2.saving"]


def test_a_full_disk_is_told_before_anything_is_written(checkpointer, monkeypatch):
    save(checkpointer, 1)
    full = shutil.disk_usage(checkpointer.directory)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(CheckpointError, match=r"no room.*1 kB \(1,000 bytes\) are free"):
        checkpointer.save(2, make_state(2), META)
    assert sorted(path.name for path in checkpointer.directory.iterdir()) == ["1"]


def test_two_arrays_never_share_a_name(checkpointer):
    with pytest.raises(ValueError, match=r"state\.a\.b names two arrays"):
        checkpointer.save(1, {"a": {"b": jnp.ones(2)}, "a.b": jnp.ones(2)}, {})


def test_what_is_set_aside_stays_and_makes_room_for_its_step(checkpointer):
    save(checkpointer, 1, 2)
    for harm in (cut, flip):
        harm(data_file(checkpointer, 2))
        step, damaged = find_newest_good(checkpointer.directory)
        assert step == 1 and list(damaged) == [2]
        set_aside(checkpointer.directory, 2)
        save(checkpointer, 2)
    assert find_newest_good(checkpointer.directory) == (2, {})
    names = sorted(path.name for path in checkpointer.directory.iterdir())
    assert names == ["1", "2", "2.damaged", "2.damaged.2"]
