"""A run of two processes, each with half of the devices, is the run of one with all of them."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.stream import open_raw
from llama_jax import recipe
from llama_jax.checkpoint import Checkpointer
from llama_jax.config import (
    BuildConfig,
    CheckpointConfig,
    EvaluateConfig,
    FilesSource,
    GuardConfig,
    RunConfig,
    TokenizerFile,
)
from llama_jax.observe.goodput import NAME, read_starts
from llama_jax.observe.writers import read_metrics
from llama_jax.train.history import documents_seen, token_order
from llama_jax.train.processes import hold_port
from llama_jax.train.taint import read_taints
from tests.train.conftest import PATIENCE_SECONDS
from tests.train.test_loop import saved_arrays, wait_for_step
from tests.train.tiny_run import COMPILE_QUICKLY, tiny_config

pytestmark = pytest.mark.slow

TRAIN = """
    import dataclasses, json, pathlib, sys
    import jax

    recipe_path, run_dir, address, index, count = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 4 // int(count))
    if int(count) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, int(count), int(index))
    from data_pipelines.stream import open_raw
    from llama_jax.recipe import load_recipe
    from llama_jax.train.loop import train

    outcome = train(load_recipe(recipe_path), pathlib.Path(run_dir), open_raw=open_raw)
    print(json.dumps(dataclasses.asdict(outcome)))
"""


@pytest.fixture
def config(corpus: Path) -> RunConfig:
    return tiny_config(
        data__directory=str(corpus),
        train__num_steps=12,
        train__batch_ramp=((6, 16),),
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(every_steps=4, num_batches=2),
    )


@dataclasses.dataclass(frozen=True)
class Processes:
    """Starts a run in one process or in several, four devices in all."""

    folder: Path
    cache: Path
    port: int

    def start(
        self, config: RunConfig | Path, run_dir: Path, count: int
    ) -> list[subprocess.Popen[str]]:
        """Starts a run of a config, or of a recipe."""
        path = self.folder / "recipe.json" if isinstance(config, RunConfig) else config
        if isinstance(config, RunConfig):
            path.write_text(recipe.to_json(config))
        address = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-c", textwrap.dedent(TRAIN), path, run_dir]
        return [
            subprocess.Popen(
                [*command, address, str(index), str(count)],
                env=os.environ
                | {
                    "JAX_PLATFORMS": "cpu",
                    "XLA_FLAGS": " ".join(f"--{k}={v}".lower() for k, v in COMPILE_QUICKLY.items()),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]

    def run(self, config: RunConfig, run_dir: Path, count: int) -> list[dict]:
        return finish(self.start(config, run_dir, count))


def finish(processes: list[subprocess.Popen[str]]) -> list[dict]:
    """What each process says at its end."""
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, err
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


@pytest.fixture
def processes(tmp_path, compile_cache) -> Iterator[Processes]:
    with hold_port() as held:
        yield Processes(tmp_path, compile_cache, held.getsockname()[1])


@pytest.mark.parametrize("listens_at", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_held_is_given_to_nobody_else_and_can_be_listened_at(listens_at):
    with hold_port() as held, socket.socket() as other, socket.socket() as ours:
        port = held.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            other.bind((listens_at, port))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ours.bind((listens_at, port))
        ours.listen()
        with socket.create_connection(("127.0.0.1", port)), ours.accept()[0]:
            pass


def assert_same_run(one: Path, two: Path, config: RunConfig) -> None:
    step = config.train.num_steps
    seen = [list(documents_seen(run, step, open_raw=open_raw)) for run in (one, two)]
    assert seen[0] == seen[1]
    assert token_order(one, step) == token_order(two, step) > 0
    rows = [read_metrics(run / "metrics.jsonl") for run in (one, two)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for name in ("loss_nats_per_token", "samples_seen", "heldout/bits_per_byte"):
        values = [[row[name] for row in run if name in row] for run in rows]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-5, err_msg=name)
    expected, got = saved_arrays(one, config, step), saved_arrays(two, config, step)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_two_processes_stream_what_one_does(processes, config, raw_texts, one_device, tmp_path):
    stream = BuildConfig(
        name="numbers",
        sources=(FilesSource(path=str(raw_texts / "raw")),),
        tokenizer=TokenizerFile(path=str(raw_texts / "small.model")),
        held_out_fraction=0.15,
    )
    model = dataclasses.replace(config.model, vocab_size=320)
    config = dataclasses.replace(config, model=model, stream=stream)
    [alone] = processes.run(config, tmp_path / "one", 1)
    first, second = processes.run(config, tmp_path / "two", 2)
    assert first["samples"] == second["samples"] == alone["samples"]
    assert first["held_out"] == second["held_out"] and first["held_out"]["files"]
    assert_same_run(tmp_path / "one", tmp_path / "two", config)


def test_two_processes_make_the_run_of_one(processes, config, one_device, tmp_path):
    [alone] = processes.run(config, tmp_path / "one", 1)
    first, second = processes.run(config, tmp_path / "two", 2)
    assert first["samples"] == second["samples"] == alone["samples"] == 6 * 8 + 6 * 16
    assert first["held_out"] == second["held_out"]
    assert_same_run(tmp_path / "one", tmp_path / "two", config)

    # Both agree that the newest checkpoint is damaged, whichever of them reads the file.
    checkpoints = tmp_path / "two/checkpoints"
    files = (path for path in (checkpoints / "12").rglob("*") if path.is_file())
    victim = max(files, key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    processes.run(config, tmp_path / "two", 2)
    assert {path.name for path in checkpoints.iterdir()} == {"10", "12", "12.damaged"}
    assert_same_run(tmp_path / "one", tmp_path / "two", config)


SPIKES = """
import time
from pathlib import Path

import jax

from llama_jax.recipe import from_json
from llama_jax.train import taint
from llama_jax.train.spikes import SpikeGuard

def config():
    return from_json(Path({config!r}).read_text())

def see(self, step, metrics, really=SpikeGuard.see):
    really(self, step, metrics)
    if step == 7 and not spiked:
        spiked.append(step)
        raise taint.Rewind(5, 7, "loss 99")

def late(run_dir, really=taint.read_taints):
    time.sleep(2 * jax.process_index())
    return really(run_dir)

if not hasattr(SpikeGuard, "spikes"):  # a recipe may be read twice
    SpikeGuard.spikes = spiked = []
    SpikeGuard.see, taint.read_taints = see, late
"""


def spiking_recipe(config: RunConfig, folder: Path) -> Path:
    """A recipe whose update 7 spikes once; later processes look later how often that was so."""
    config = dataclasses.replace(config, guards=GuardConfig(max_rewinds=1))
    (folder / "config.json").write_text(recipe.to_json(config))
    path = folder / "spikes.py"
    path.write_text(SPIKES.format(config=str(folder / "config.json")))
    return path


def test_two_processes_go_back_together_though_one_looks_later_how_often_they_did(
    processes, config, one_device, tmp_path
):
    path = spiking_recipe(config, tmp_path)
    finish(processes.start(path, tmp_path / "one", 1))
    finish(processes.start(path, tmp_path / "two", 2))
    for run in (tmp_path / "one", tmp_path / "two"):
        [taint] = read_taints(run)
        assert taint.applied and (taint.since_step, taint.passed_rows) == (5, 8 + 16)
        assert [start.step for start in read_starts(run / NAME)] == [0, 5]
    assert_same_run(tmp_path / "one", tmp_path / "two", config)


def test_a_shard_that_one_host_alone_lacks_is_named_by_it_before_anything_is_computed(
    llama_jax, config, corpus, tmp_path, monkeypatch
):
    hosts = [dataclasses.replace(llama_jax, folder=tmp_path / name) for name in ("here", "there")]
    for host in hosts:
        shutil.copytree(corpus, host.folder / "tokens")
    victim = min((hosts[1].folder / "tokens").rglob("*train*.array_record*"))
    victim.unlink()
    asked = ("--data.directory", "tokens", "--run-dir", tmp_path / "run")
    with hold_port() as held:
        monkeypatch.setenv("LLAMA_JAX_COORDINATOR", f"127.0.0.1:{held.getsockname()[1]}")
        monkeypatch.setenv("LLAMA_JAX_NUM_PROCESSES", "2")
        monkeypatch.setenv("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "gloo")
        started = []
        for index, host in enumerate(hosts):
            monkeypatch.setenv("LLAMA_JAX_PROCESS_ID", str(index))
            started.append(host.start("train", llama_jax.recipe(config), *asked))
        told = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in started]
    # The first one would wait for the other, and hears why it does not come.
    assert [process.returncode for process in started] == [2, 2], told
    assert victim.name in told[1]
    assert "process 1 refuses: " in told[0] and victim.name in told[0]
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_signal_to_one_process_stops_both_at_the_same_step(
    processes, config, one_device, tmp_path
):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=100_000))
    started = processes.start(config, tmp_path / "two", 2)
    wait_for_step(tmp_path / "two", 8, started[0])
    started[1].send_signal(signal.SIGTERM)
    first, second = finish(started)
    assert first["stopped_by"] == second["stopped_by"] == "preemption"
    assert 8 <= first["step"] == second["step"] < 100_000
    saved = Checkpointer(tmp_path / "two/checkpoints", read_only=True)
    assert saved.latest_step() == first["step"]
