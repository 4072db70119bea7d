"""A real local Ray runs the ray launcher, where Ray is installed."""

import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from llama_jax.cli.launch.state import LaunchState
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


@pytest.fixture
def ray_cluster():
    """A Ray of two CPUs on this machine."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'llama-jax[ray]'")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", "--num-cpus", "2", "--include-dashboard", "false"]
    subprocess.run([*ray, *start, "--disable-usage-stats"], check=True)
    yield
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
    assert_same_run(undisturbed, run, config, 20)


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
