"""Runs of several real processes: the run of one, whatever happens to them."""

import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from llama_jax.cli.launch.state import LaunchState, process_state
from llama_jax.config import CheckpointConfig, GuardConfig, MeshConfig, RunConfig
from llama_jax.observe.goodput import NAME, read_goodput, read_starts
from llama_jax.observe.incidents import read_incidents
from llama_jax.observe.writers import read_metrics
from llama_jax.train.history import documents_seen, token_order
from tests.train.conftest import PATIENCE_SECONDS, Command, Hold
from tests.train.test_loop import assert_same_run, wait_for_step

LAUNCH = ("launch", "local")


def losses(run: Path) -> np.ndarray:
    rows = read_metrics(run / "metrics.jsonl")
    return np.array([row["loss_nats_per_token"] for row in rows if "grad_norm" in row])


def wait_for_attempt(run: Path, attempt: int, launcher) -> None:
    """Returns once all processes of an attempt were started."""
    while launcher.poll() is None:
        if (run / "launch.json").is_file() and LaunchState.load(run).attempt >= attempt:
            return
        time.sleep(0.05)
    raise AssertionError(f"the launch ended before attempt {attempt}")


def workers(run: Path) -> list[int]:
    """Pids of the processes that run now."""
    return [worker["pid"] for worker in LaunchState.load(run).workers]


def six_steps(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=6))


@pytest.fixture(scope="module")
def alone(config, compile_cache, tmp_path_factory) -> Path:
    """The folder of a run of one process on one device."""
    command = Command(tmp_path_factory.mktemp("alone"), compile_cache)
    command.run("train", command.recipe(six_steps(config)), "--run-dir", "run")
    return command.folder / "run"


@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [
        (2, 1, MeshConfig(fsdp=2)),
        pytest.param(2, 2, MeshConfig(fsdp=2, tensor=2), marks=pytest.mark.slow),
        pytest.param(2, 1, MeshConfig(fsdp=1, tensor=2), marks=pytest.mark.slow),
        pytest.param(2, 4, MeshConfig(replica=2, fsdp=2, tensor=2), marks=pytest.mark.slow),
        pytest.param(4, 1, MeshConfig(fsdp=4), marks=pytest.mark.slow),
        pytest.param(4, 1, MeshConfig(fsdp=2, tensor=2), marks=pytest.mark.long),
        pytest.param(4, 2, MeshConfig(replica=2, fsdp=4), marks=pytest.mark.long),
    ],
)
def test_several_processes_have_the_losses_of_one(
    llama_jax, config, alone, processes, devices, mesh
):
    recipe = llama_jax.recipe(dataclasses.replace(six_steps(config), mesh=mesh))
    counts = ("--processes", processes, "--devices-per-process", devices)
    done = llama_jax.run(*LAUNCH, recipe, *counts, "--run-dir", "run", "--json")
    document = json.loads(done.stdout)
    assert (document["phase"], document["exit_code"], document["checkpoint"]) == ("done", 0, 6)
    run = llama_jax.folder / "run"
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)
    assert list(documents_seen(run, 6)) == list(documents_seen(alone, 6))
    assert token_order(run, 6) == token_order(alone, 6) > 0
    state = LaunchState.load(run)
    assert (state.phase, state.attempt, len(state.workers)) == ("done", 1, processes)
    assert len(list((run / "logs").glob("process-*.log"))) == processes


@pytest.fixture(scope="module")
def of_two(config, compile_cache, tmp_path_factory) -> Path:
    """The folder of a run of two processes that was left alone, with all of its checkpoints."""
    command = Command(tmp_path_factory.mktemp("of_two"), compile_cache)
    flags = ("--mesh.fsdp", 2, "--checkpoint.keep-last", 9)
    command.run(*LAUNCH, command.recipe(config), *flags, "--run-dir", "run")
    return command.folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [
        pytest.param(1, 1, MeshConfig(fsdp=1), id="one process"),
        pytest.param(4, 1, MeshConfig(fsdp=4), id="four processes"),
        pytest.param(2, 1, MeshConfig(fsdp=1, tensor=2), id="another mesh"),
    ],
)
def test_a_run_of_two_processes_goes_on_in_any_number_on_any_mesh(
    llama_jax, config, of_two, processes, devices, mesh
):
    run = llama_jax.folder / "run"
    shutil.copytree(of_two / "checkpoints/5", run / "checkpoints/5")
    shutil.copy(of_two / "config.json", run)
    recipe = llama_jax.recipe(dataclasses.replace(config, mesh=mesh))
    counts = ("--processes", processes, "--devices-per-process", devices)
    llama_jax.run(*LAUNCH, recipe, *counts, "--run-dir", "run")
    assert [start.step for start in read_starts(run / NAME)] == [5]
    np.testing.assert_allclose(losses(run), losses(of_two)[5:], rtol=1e-5)
    assert list(documents_seen(run, 12)) == list(documents_seen(of_two, 12))
    assert token_order(run, 12) == token_order(of_two, 12) > 0


def test_a_launch_that_cannot_work_is_refused_before_anything_starts(llama_jax, config):
    recipe = llama_jax.recipe(config)
    wrong = {
        (
            "--mesh.fsdp",
            3,
        ): "cannot be laid over 2 devices",
        ("--data.directory", "nowhere"): "data.directory='nowhere' holds no source",
        ("--run-dir", "gs://bucket/run"): "mount the bucket",
        ("--processes", 0): "--processes=0 must be positive",
    }
    for flags, complaint in wrong.items():
        done = llama_jax.run(*LAUNCH, recipe, *flags, expect=2)
        assert complaint in done.stderr
        assert not (llama_jax.folder / "runs/tiny/launch.json").exists()


def test_a_dry_run_prints_what_would_run(llama_jax, config):
    recipe = llama_jax.recipe(config)
    done = llama_jax.run(*LAUNCH, recipe, "--processes", 2, "--train.seed", 3, "--dry-run")
    first, second = done.stdout.split("&\n")[:2]
    for index, lines in enumerate((first, second)):
        assert f"LLAMA_JAX_PROCESS_ID={index}" in lines and "JAX_NUM_CPU_DEVICES=1" in lines
        assert f"train {recipe} --train.seed 3 --run-dir runs/tiny" in lines
    assert not (llama_jax.folder / "runs").exists()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(5, marks=pytest.mark.slow),
        pytest.param(50, marks=pytest.mark.long, id="fifty"),
    ],
)
def test_a_run_whose_processes_are_killed_is_the_run_left_alone(
    llama_jax, config, kills, one_device
):
    reach = 60  # so far ahead of the last kill that hardly any comes to a run that waits
    steps = reach * (kills + 1)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=steps))
    (recipe, hold), rng = llama_jax.held_recipe(config), random.Random(kills)
    undisturbed, run = llama_jax.folder / "undisturbed", llama_jax.folder / "run"
    llama_jax.run(*LAUNCH, recipe, "--run-dir", "undisturbed")
    hold.after(reach)
    log = llama_jax.folder / "launcher.log"
    launcher = llama_jax.start(*LAUNCH, recipe, "--run-dir", "run", log=log)
    wait_for_attempt(run, 1, launcher)
    began = LaunchState.load(run).started, time.time()
    furthest, found, start_seconds = 0, collections.Counter(), 0.0
    for kill in range(kills):
        started = time.monotonic()
        if kill % 3 == 2:
            time.sleep(rng.random() * start_seconds)
        else:  # further than at any kill before: three crashes after the same step would be a loop
            wait_for_step(run, furthest + 1 + rng.randrange(4), launcher)
            start_seconds = start_seconds or time.monotonic() - started
            time.sleep(rng.random() * 0.2)
        victim = rng.choice(workers(run))
        found[what_is_done(run, hold, victim, starting=kill % 3 == 2)] += 1
        os.kill(victim, signal.SIGKILL)
        wait_for_attempt(run, kill + 2, launcher)
        furthest = max([furthest, *(row["step"] for row in read_metrics(run / "metrics.jsonl"))])
        hold.after(int(furthest) + reach)
    hold.release()
    launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 0, log.read_text()[-10_000:]
    assert found["waits"] <= kills // 4, found
    state = LaunchState.load(run)
    assert state.attempt == kills + 1 and len(state.incidents) == kills
    assert all("killed by SIGKILL" in incident["what"] for incident in state.incidents)
    assert_same_run(undisturbed, run, config, steps)
    assert {path.name.isdecimal() for path in (run / "checkpoints").iterdir()} == {True}
    account = read_goodput(run / NAME)
    assert account.seconds["repeated"] > 0 and account.seconds["down"] > 0
    # By clocks outside: from when processes were started to when the last note was written.
    ended = (run / NAME).stat().st_mtime
    longest, shortest = (ended - start for start in began)
    assert 0.99 * shortest <= account.total <= 1.01 * longest
    print(f"{kills} kills, {dict(found)}: {shortest:.1f} s by the clocks outside; {account}")


def what_is_done(run: Path, hold: Hold, victim: int, *, starting: bool) -> str:
    """Into what a kill of a process falls."""
    if starting:
        return "starts"
    if hold.has_waiting(victim):
        return "waits"
    return "saves" if list((run / "checkpoints").glob("*.saving")) else "updates"


@pytest.mark.slow
def test_a_stopped_launch_saves_and_goes_on_where_it_was(llama_jax, config, one_device):
    # Each update waits, and none for ever: all processes agree on one at which they stop.
    recipe, hold = llama_jax.held_recipe(config, seconds=5.0)
    length = ("--train.num-steps", 120)
    llama_jax.run(*LAUNCH, recipe, "--run-dir", "undisturbed", *length)
    hold.after(9)
    log = llama_jax.folder / "launcher.log"
    launcher = llama_jax.start(*LAUNCH, recipe, "--run-dir", "run", *length, log=log)
    run = llama_jax.folder / "run"
    wait_for_step(run, 7, launcher)
    status = json.loads(llama_jax.run("launch", "status", "run", "--json").stdout)
    assert status["phase"] == "running" and status["step"] >= 7
    assert [worker["state"] for worker in status["workers"]] == ["running"] * 2
    llama_jax.run("launch", "stop", "run")
    launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 75, log.read_text()[-10_000:]
    status = json.loads(llama_jax.run("launch", "status", "run", "--json").stdout)
    assert status["phase"] == "stopped" and status["checkpoint"] == status["step"] < 120
    assert 0 < status["goodput"] < 1
    assert "attempt 1" in llama_jax.run("launch", "logs", "run").stdout

    hold.release()
    llama_jax.run("launch", "resume", "run")
    assert_same_run(llama_jax.folder / "undisturbed", run, config, 120)


@pytest.mark.slow
def test_a_crash_loop_stops_and_shows_the_log(llama_jax, config):
    # Every update is not finite: each attempt fails at the same step, and says why.
    recipe = llama_jax.recipe(
        dataclasses.replace(
            config,
            optimizer=dataclasses.replace(config.optimizer, peak_lr=1e38),
            train=dataclasses.replace(config.train, max_skipped_updates=1),
        )
    )
    done = llama_jax.run(*LAUNCH, recipe, "--run-dir", "run", expect=1)
    assert "a crash loop" in done.stderr and "is not finite" in done.stderr.split("given up")[1]
    state = LaunchState.load(llama_jax.folder / "run")
    assert (state.phase, state.attempt) == ("failed", 3)


# On a busy machine any update might take as long as the deadline: the one of the test alone has it.
WHILE_ARMED = """
from llama_jax.train import watchdog

def expect(self, step, what, *, long=False, expected=watchdog.Watchdog.expect):
    expected(self, step, what, long=long)
    if not hold.with_name("armed").exists():
        self._task = self._task._replace(within_seconds=0.0)

watchdog.Watchdog.expect = expect
watchdog._LONGEST_TICK_SECONDS = 0.1
"""


@pytest.mark.slow
def test_a_process_that_is_stopped_is_named_and_all_start_again(llama_jax, config, one_device):
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, num_steps=30),
        # Well below 30 s, after which the devices of a CPU give up waiting by themselves.
        guards=GuardConfig(step_deadline_seconds=5.0),
    )
    (recipe, hold), run = llama_jax.held_recipe(config), llama_jax.folder / "run"
    recipe.write_text(recipe.read_text() + WHILE_ARMED)
    llama_jax.run(*LAUNCH, recipe, "--run-dir", "undisturbed")
    hold.after(20)
    armed = hold.path.with_name("armed")
    launcher = llama_jax.start(*LAUNCH, recipe, "--run-dir", "run")
    wait_for_step(run, 18, launcher)
    first, second = workers(run)
    while not (hold.has_waiting(first) and hold.has_waiting(second)):
        time.sleep(0.01)
    armed.touch()
    os.kill(second, signal.SIGSTOP)
    hold.release()
    wait_for_attempt(run, 2, launcher)
    armed.unlink()
    _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 0, err
    [hang] = [incident for incident in read_incidents(run) if incident.kind == "hang"]
    assert hang.step >= 20 and hang.text.startswith(f"process 0 of 2 (pid {first} ")
    assert " did not end within 5 s; silent: process 1; stacks in step_" in hang.text
    [incident] = LaunchState.load(run).incidents
    assert incident["what"].startswith("crashed: process 0 exited with 1, after step ")
    assert incident["what"].endswith("process 1 was still stopped")
    assert len(read_starts(run / NAME)) == 2
    assert_same_run(llama_jax.folder / "undisturbed", run, config, 30)


@pytest.mark.slow
def test_a_disk_that_fills_ends_a_launch_by_name_and_the_next_one_goes_on(
    llama_jax, config, small_disk, one_device
):
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, embed_dim=32, mlp_dim=64),
        train=dataclasses.replace(config.train, num_steps=25),
        checkpoint=CheckpointConfig(every_steps=5, keep_last=9),
    )
    recipe, undisturbed = llama_jax.recipe(config), llama_jax.folder / "undisturbed"
    llama_jax.run(*LAUNCH, recipe, "--run-dir", undisturbed)
    files = [path for path in (undisturbed / "checkpoints/5").rglob("*") if path.is_file()]
    taken = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    # Room for two checkpoints, and for half of a third: files that are written on find theirs.
    filler, run = small_disk / "filler", small_disk / "run"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 5 * taken // 2))
    done = llama_jax.run(*LAUNCH, recipe, "--run-dir", run, "--max-restarts", 0, expect=1)
    assert f"Checkpoint {run}/checkpoints/15 was not saved: " in done.stderr
    assert "Step 10 is the last good one." in done.stderr
    assert LaunchState.load(run).phase == "failed"

    filler.unlink()
    llama_jax.run("launch", "resume", run)
    assert [start.step for start in read_starts(run / NAME)] == [0, 10]
    assert_same_run(undisturbed, run, config, 25)


# Both processes have their data in a folder of the same name, as hosts with disks of their own.
OF_ONE_HOST = """
import os
from pathlib import Path
from llama_jax.recipe import from_json

if os.environ.get("LLAMA_JAX_PROCESS_ID") == "1":
    os.chdir({there!r})

def config():
    return from_json(Path({config!r}).read_text())
"""


@pytest.mark.slow
def test_a_shard_that_one_host_alone_lacks_ends_the_launch_at_once(llama_jax, config, corpus):
    here, there = llama_jax.folder, llama_jax.folder / "there"
    for folder in (here, there):
        shutil.copytree(corpus, folder / "tokens")
    victim = min((there / "tokens").rglob("*train*.array_record*"))
    victim.unlink()
    path = here / "one_host.py"
    path.write_text(OF_ONE_HOST.format(there=str(there), config=str(llama_jax.recipe(config))))
    asked = ("--data.directory", "tokens", "--run-dir", here / "run")
    done = llama_jax.run(*LAUNCH, path, *asked, expect=2)
    assert victim.name in (here / "run/logs/process-1.log").read_text()
    state = LaunchState.load(here / "run")
    assert (state.phase, state.attempt) == ("failed", 1), done.stderr
    assert state.incidents[0]["codes"]["1"] == 2
    assert not list((here / "run").glob("checkpoints/*"))


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_process_behind(llama_jax, config):
    launcher = llama_jax.start(
        *LAUNCH,
        llama_jax.recipe(config),
        "--run-dir",
        "run",
        "--train.num-steps",
        100_000,
    )
    run = llama_jax.folder / "run"
    wait_for_step(run, 3, launcher)
    pids = workers(run)
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(process_state(pid) != "gone" for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    status = json.loads(llama_jax.run("launch", "status", "run", "--json").stdout)
    assert status["phase"] == "failed" and status["checkpoint"] == status["step"]
