"""A real local Ray runs the ray launcher, where Ray is installed."""

import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from llama_jax.cli.launch import main, ray_driver
from llama_jax.cli.launch.state import LaunchState
from tests.launch.conftest import quiet_ports
from tests.train.conftest import PATIENCE_SECONDS
from tests.train.test_loop import assert_same_run, wait_for_step

FLAGS = ("--workers", 2, "--devices-per-worker", 1, "--same-node")


def test_a_dry_run_prints_what_the_driver_is_told(llama_jax, config):
    recipe = llama_jax.recipe(config)
    flags = (
        "--workers",
        8,
        "--gpus-per-worker",
        8,
        "--run-dir",
        "/shared/run",
        "--dry-run",
    )
    done = llama_jax.run("launch", "ray", recipe, *flags)
    spec = json.loads(shlex.split(done.stdout.replace("\\\n", ""))[-1])
    assert spec["bundle"] == {"CPU": 1, "GPU": 8} and spec["workers"] == 8
    assert spec["strategy"] == "STRICT_SPREAD" and spec["logs"] == "/shared/run/logs"
    assert spec["argv"] == [str(recipe), "--run-dir", "/shared/run"]


class ActorGoneError(Exception):
    """What Ray raises where the node of an actor is gone."""


class StandIn:
    """A method of an actor, or a thing that will be there: gives one answer after another."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def remote(self, *arguments):
        self.asked.append(arguments)
        return self

    def get(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray, which need not be installed, and that has no room at first."""
    group = SimpleNamespace(ready=lambda: StandIn(None))
    waits = iter([([], ["group"]), (["group"], [])])
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(RayActorError=ActorGoneError),
        get=lambda things: [t.get() for t in things] if isinstance(things, list) else things.get(),
        wait=lambda things, timeout: next(waits),
        available_resources=lambda: {"CPU": 1.0},
        group=group,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_driver, "_POLL_SECONDS", 0.0)
    return ray


def spec(tmp_path, workers: int = 2) -> ray_driver.Spec:
    return ray_driver.Spec(
        address="auto",
        workers=workers,
        bundle={"CPU": 1, "GPU": 8},
        strategy="PACK",
        environment={},
        logs=str(tmp_path),
        stop_seconds=PATIENCE_SECONDS,
        argv=["demo"],
    )


def actor(*polls) -> SimpleNamespace:
    return SimpleNamespace(poll=StandIn(*polls), send=StandIn(None))


def test_a_cluster_without_room_is_waited_for_aloud(ray, tmp_path, capsys):
    assert ray_driver._wait_for_room(spec(tmp_path), ray.group, [])
    said = capsys.readouterr().err
    assert "waits for 2 times {'CPU': 1, 'GPU': 8}" in said and "'CPU': 1.0, 'GPU': 0" in said
    assert not ray_driver._wait_for_room(spec(tmp_path), ray.group, [signal.SIGTERM])


def test_a_node_that_is_gone_when_all_are_asked_to_stop_takes_no_word_from_the_others(
    ray, tmp_path
):
    gone, left = actor(None, ActorGoneError()), actor(None, None, 75)
    gone.send = StandIn(ActorGoneError())
    codes = ray_driver._watch(spec(tmp_path), [gone, left], [signal.SIGTERM])
    assert codes == {0: -signal.SIGKILL, 1: 75}
    assert left.send.asked == [(signal.SIGTERM,)]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({0: 0, 1: 0}, 0),
        ({0: 75, 1: 0}, 75),
        ({0: 75, 1: -9}, 1),
        ({0: 75}, 1),
        ({1: 2}, 2),
        ({}, 1),
    ],
)
def test_the_driver_ends_as_the_processes_do(tmp_path, codes, code):
    assert ray_driver._conclude(spec(tmp_path), codes) == code


def test_the_log_of_the_process_that_failed_is_shown(tmp_path, capsys):
    (tmp_path / "worker-1.log").write_text("the reason\n")
    assert ray_driver._conclude(spec(tmp_path), {0: -6, 1: 1}) == 1
    said = capsys.readouterr().err
    assert "worker 1 exited with 1" in said and "  the reason" in said


def test_logs_shows_what_every_process_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state = LaunchState(platform="ray", name="run", run_dir="run", argv=[])
    state.logs = ray_driver.logs_of("run/logs", 2)
    state.save(tmp_path / "run")
    (tmp_path / "run/logs").mkdir()
    (tmp_path / "run/logs/worker-1.log").write_text("step 7\n")
    assert main(["logs", "run"]) == 0
    assert "--- worker 1: run/logs/worker-1.log\nstep 7\n" in capsys.readouterr().out


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray of two CPUs on this machine."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'llama-jax[ray]'")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    # A port that is given is not waited for; Ray waits for few seconds, however busy the machine.
    names = ("", "dashboard-agent-grpc-", "dashboard-agent-listen-", "metrics-export-")
    ports = dict(zip((*names, "runtime-env-agent-"), quiet_ports(5), strict=True))
    flags = [word for name, port in ports.items() for word in (f"--{name}port", str(port))]
    start = ["start", "--head", "--num-cpus", "2", "--include-dashboard", "false", *flags]
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", str(PATIENCE_SECONDS))
    try:
        subprocess.run([*ray, *start, "--disable-usage-stats"], check=True)
        yield
    finally:
        subprocess.run([*ray, "stop", "--force"], check=True)


@pytest.mark.slow
def test_a_run_on_ray_whose_process_is_killed_is_the_run_left_alone(
    llama_jax, config, ray_cluster, one_device
):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=20))
    (recipe, hold), run = llama_jax.held_recipe(config), llama_jax.folder / "run"
    undisturbed = llama_jax.folder / "undisturbed"
    llama_jax.run("launch", "ray", recipe, *FLAGS, "--run-dir", undisturbed)
    hold.after(10)
    launcher = llama_jax.start("launch", "ray", recipe, *FLAGS, "--run-dir", run)
    wait_for_step(run, 7, launcher)
    victims = subprocess.run(
        ["pgrep", "--full", f"llama_jax.cli.main train {recipe}"],
        capture_output=True,
        text=True,
    )
    os.kill(int(victims.stdout.split()[-1]), signal.SIGKILL)
    hold.release()
    _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 0, err
    state = LaunchState.load(run)
    assert (state.platform, state.phase, state.attempt) == ("ray", "done", 2)
    assert "was killed by SIGKILL" in err
    assert "--- worker 1: " in llama_jax.run("launch", "logs", run).stdout
    assert_same_run(undisturbed, run, config, 20)


@pytest.mark.slow
def test_a_preempted_ray_run_starts_again(llama_jax, config, ray_cluster, one_device):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=60))
    # Each update waits, and none for ever: all processes agree on one at which they stop.
    (recipe, hold), run = llama_jax.held_recipe(config, seconds=5.0), llama_jax.folder / "run"
    hold.after(10)
    launcher = llama_jax.start("launch", "ray", recipe, *FLAGS, "--run-dir", run)
    wait_for_step(run, 7, launcher)
    command = ["pgrep", "--full", f"llama_jax.cli.main train {recipe}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    os.kill(int(told.stdout.split()[-1]), signal.SIGTERM)
    while launcher.poll() is None and LaunchState.load(run).attempt < 2:
        time.sleep(0.05)
    hold.release()
    _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 0, err
    state = LaunchState.load(run)
    assert (state.phase, state.attempt) == ("done", 2) and "preempted" in state.incidents[0]["what"]


@pytest.mark.slow
def test_a_stopped_ray_launch_saves(llama_jax, config, ray_cluster):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=100_000))
    run = llama_jax.folder / "run"
    launcher = llama_jax.start("launch", "ray", llama_jax.recipe(config), *FLAGS, "--run-dir", run)
    wait_for_step(run, 7, launcher)
    llama_jax.run("launch", "stop", run)
    _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 75, err
    status = json.loads(llama_jax.run("launch", "status", run, "--json").stdout)
    assert status["phase"] == "stopped" and status["checkpoint"] == status["step"] >= 7
