"""Full disks and kills: the last good checkpoint stays, and nothing half is left."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer, CheckpointError
from llama_jax.config import CheckpointConfig
from llama_jax.train.processes import hold_port
from tests.train.conftest import PATIENCE_SECONDS

KEEP_ALL = CheckpointConfig(keep_last=100)
ONE_MB = 1 << 20


def make_state(step, megabytes=1):
    return {"w": jnp.full(megabytes * ONE_MB // 4, step, jnp.float32), "step": jnp.int32(step)}


def assert_good(directory, *steps):
    """Each step is complete, correct, and nothing else is there."""
    with Checkpointer(directory, read_only=True) as checkpointer:
        assert sorted(path.name for path in directory.iterdir()) == sorted(map(str, steps))
        for step in steps:
            state, meta = checkpointer.restore(step, jax.eval_shape(lambda: make_state(0)))
            assert np.unique(state["w"]).tolist() == [step]
            assert (int(state["step"]), meta) == (step, {"step": step})


def test_a_disk_without_room_refuses_and_names_the_last_good_one(small_disk):
    directory = small_disk / "checkpoints"
    with Checkpointer(directory, KEEP_ALL) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, make_state(step), {"step": step})
        with pytest.raises(CheckpointError, match=r"no room.*needs 1\.05 MB.*Step 3 is the last"):
            checkpointer.save(4, make_state(4), {"step": 4})
    assert_good(directory, 1, 2, 3)


def test_a_disk_that_fills_during_a_save_keeps_the_last_good_one(small_disk, monkeypatch):
    directory = small_disk / "checkpoints"
    really = shutil.disk_usage
    with Checkpointer(directory, KEEP_ALL) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, make_state(step), {"step": step})
        checkpointer.wait()
        # The first look at the disk finds room; then the disk is as full as it is.
        answers = iter([really(directory)._replace(free=10**12)])
        monkeypatch.setattr(shutil, "disk_usage", lambda path: next(answers, None) or really(path))
        checkpointer.save(4, make_state(4), {"step": 4})
        with pytest.raises(CheckpointError) as failure:
            checkpointer.wait()
        free = really(directory).free
        checkpointer.poll()  # told once
        shutil.rmtree(directory / "1")  # room again
        checkpointer.save(5, make_state(5), {"step": 5})
    message = str(failure.value)
    assert str(directory / "4") in message
    assert "No space left on device" in message
    assert "1.05 MB (1,048,580 bytes)" in message
    assert f"{free:,} bytes) are free" in message
    assert "Step 3 is the last good one" in message
    assert_good(directory, 2, 3, 5)


def test_a_folder_deleted_during_a_save_is_told(tmp_path, monkeypatch):
    directory = tmp_path / "run" / "checkpoints"
    checkpointer = Checkpointer(directory, KEEP_ALL)
    commit = Checkpointer._commit

    def delete_then_commit(self, *args):
        shutil.rmtree(tmp_path / "run")
        commit(self, *args)

    monkeypatch.setattr(Checkpointer, "_commit", delete_then_commit)
    checkpointer.save(1, make_state(1), {"step": 1})
    with pytest.raises(CheckpointError, match=r"No such file or directory.*There is no earlier"):
        checkpointer.close()


def test_a_checkpoint_that_cannot_be_deleted_is_named_and_the_new_one_stays(tmp_path):
    (tmp_path / "1.deleting").write_text("in the way")
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=1)) as checkpointer:
        checkpointer.save(1, make_state(1), {"step": 1})
        checkpointer.save(2, make_state(2), {"step": 2})
        with pytest.raises(CheckpointError, match=r"2 is complete, but an older one .*1\.deleting"):
            checkpointer.wait()
        assert checkpointer.steps() == [1, 2]


SAVE_FOREVER = """
    import pathlib, sys
    import jax.numpy as jnp
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.config import CheckpointConfig

    directory, keep = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    checkpointer = Checkpointer(directory, CheckpointConfig(keep_last=keep))
    step = (checkpointer.latest_step() or 0) + 1
    while True:
        state = {"w": jnp.full(1 << 18, step, jnp.float32), "step": jnp.int32(step)}
        checkpointer.save(step, state, {"step": step})
        print("saving", step, flush=True)
        step += 1
"""

LIMITED = """
    import pathlib, resource, sys
    import jax.numpy as jnp
    from llama_jax.checkpoint import Checkpointer, CheckpointError

    checkpointer = Checkpointer(pathlib.Path(sys.argv[1]))
    small = {"w": jnp.full(1 << 18, 1, jnp.float32), "step": jnp.int32(1)}
    checkpointer.save(1, small, {"step": 1})
    checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    checkpointer.save(2, {"w": jnp.arange(1 << 20)}, {"step": 2})
    try:
        checkpointer.wait()
    except CheckpointError as error:
        print(error)
"""


def start(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def test_a_write_that_the_system_refuses_keeps_the_last_good_one(tmp_path):
    output, _ = start(LIMITED, tmp_path).communicate(timeout=PATIENCE_SECONDS)
    assert "File too large" in output
    assert "4.19 MB" in output
    assert "Step 1 is the last good one" in output
    assert_good(tmp_path, 1)


def kill_while_saving(directory, keep, delay_seconds):
    process = start(SAVE_FOREVER, directory, keep)
    for _ in range(2):  # the second save is in progress, the first is complete or nearly so
        assert process.stdout.readline().startswith("saving")
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("keep", "delays"),
    [
        pytest.param(1, (0.0, 0.013), id="a few kills"),
        pytest.param(2, [i * 0.007 for i in range(20)], id="many", marks=pytest.mark.slow),
    ],
)
def test_a_killed_save_leaves_checkpoints_complete_or_absent(tmp_path, keep, delays):
    last = 0
    for delay in delays:
        kill_while_saving(tmp_path, keep, delay)
        Checkpointer(tmp_path, KEEP_ALL).close()  # clears what was left
        with Checkpointer(tmp_path, read_only=True) as checkpointer:
            steps = checkpointer.steps()
        assert_good(tmp_path, *steps)
        assert steps, "the save before the killed one was complete"
        assert steps[-1] > last
        assert len(steps) <= keep + 1
        last = steps[-1]


TWO_HOSTS = """
    import pathlib, sys
    import jax
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(sys.argv[3], 2, int(sys.argv[2]))
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec as P
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.config import CheckpointConfig, MeshConfig
    from llama_jax.sharding import make_mesh
    from llama_jax.train.processes import meet

    meet()
    sharding = NamedSharding(make_mesh(MeshConfig(fsdp=4)), P("fsdp"))
    numbers = np.arange(64, dtype=np.float32).reshape(16, 4)

    def make(step):
        return {"w": jax.make_array_from_callback((16, 4), sharding, lambda i: numbers[i] + step)}

    with Checkpointer(pathlib.Path(sys.argv[1]), CheckpointConfig(keep_last=2)) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, make(step), {"step": step})
        checkpointer.wait()
        assert checkpointer.latest_step() == 3
        state, meta = checkpointer.restore(3, make(0))
        for shard in state["w"].addressable_shards:
            np.testing.assert_array_equal(shard.data, numbers[shard.index] + 3)
"""


@pytest.mark.slow
def test_a_checkpoint_of_two_hosts_is_restored_on_one(tmp_path):
    with hold_port() as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
        hosts = [start(TWO_HOSTS, tmp_path, i, address) for i in range(2)]
        assert [host.wait(timeout=PATIENCE_SECONDS) for host in hosts] == [0, 0]
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.steps() == [2, 3]
        checkpointer.verify(3, deep=True)
        wanted = {"w": jax.ShapeDtypeStruct((16, 4), jnp.float32)}
        state, _ = checkpointer.restore(3, wanted)
        np.testing.assert_array_equal(state["w"], np.arange(64).reshape(16, 4) + 3.0)
