"""Runs as a person starts them: they learn, resume, branch off, and refuse by name."""

import dataclasses
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.checkpoint.names import named_arrays
from llama_jax.config import CheckpointConfig, EvaluateConfig, RunConfig
from llama_jax.model import abstract_params
from llama_jax.observe.writers import read_metrics
from llama_jax.train.history import documents_seen, samples_seen
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import abstract_state
from tests.train.tiny_run import tiny_config

NUM_STEPS = 40


@pytest.fixture
def config(corpus: Path) -> RunConfig:
    return tiny_config(
        data__directory=str(corpus),
        train__num_steps=NUM_STEPS,
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(every_steps=20, num_batches=2),
    )


def saved_arrays(run_dir: Path, config: RunConfig, step: int) -> dict[str, np.ndarray]:
    """Parameters and optimizer state of a checkpoint."""
    _, params = abstract_params(config.model, config.compute)
    abstract = abstract_state(params, make_optimizer(config.optimizer))
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        state, _ = checkpointer.restore(step, abstract)
    return {name: np.asarray(array) for name, array in named_arrays(state).items()}


def assert_same_run(one: Path, other: Path, config: RunConfig, step: int) -> None:
    """Bit for bit: parameters, optimizer state, documents, and metrics but for the times."""
    expected, got = saved_arrays(one, config, step), saved_arrays(other, config, step)
    assert expected.keys() == got.keys() and any("nu" in name for name in got)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name], err_msg=name)
    assert list(documents_seen(one, step)) == list(documents_seen(other, step))
    exact = ("step", "loss_nats_per_token", "samples_seen", "heldout/bits_per_byte")
    rows = [
        [
            {key: row[key] for key in exact if key in row}
            for row in read_metrics(run / "metrics.jsonl")
        ]
        for run in (one, other)
    ]
    assert rows[0] == rows[1]


def wait_for_step(run_dir: Path, step: int, process) -> None:
    """Returns once the run has reported a step."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        path = run_dir / "metrics.jsonl"
        if path.is_file() and any(row["step"] >= step for row in read_metrics(path)):
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[1]}")


def test_a_model_learns_and_says_how_well(llama_jax, config):
    done = llama_jax.run("train", llama_jax.recipe(config), "--run-dir", "run", "--json")
    summary = json.loads(done.stdout)
    rows = [r for r in read_metrics(llama_jax.folder / "run/metrics.jsonl") if "grad_norm" in r]
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert rows[-1]["loss_nats_per_token"] < rows[0]["loss_nats_per_token"] - 1.0
    assert summary["step"] == NUM_STEPS and summary["samples"] == NUM_STEPS * 8
    held_out = summary["held_out"]
    assert held_out.keys() == {"up", "down"}
    assert held_out["up"]["loss_nats_per_token"] < np.log(64) - 1.0
    for words in ("parameters", "causal", "full", "a checkpoint", "measured", "epochs", "mesh"):
        assert words in done.stderr

    # The same scores from the checkpoint, by the command for them.
    again = llama_jax.run("eval", "run", "--json")
    assert json.loads(again.stdout)["held_out"] == held_out
    # A finished run has nothing left to do, and writes nothing twice.
    before = (llama_jax.folder / "run/metrics.jsonl").read_bytes()
    llama_jax.run("train", llama_jax.recipe(config), "--run-dir", "run")
    assert (llama_jax.folder / "run/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_is_the_run_that_was_never_killed(
    llama_jax, config, kills, one_device
):
    recipe_path = llama_jax.recipe(config)
    llama_jax.run("train", recipe_path, "--run-dir", "undisturbed")
    rng = random.Random(kills)
    killed = llama_jax.folder / "killed"
    for kill in range(kills):
        process = llama_jax.start("train", recipe_path, "--run-dir", "killed")
        # Later with every kill, so that the runs get on; some fall into a save.
        wait_for_step(killed, 2 + kill * (NUM_STEPS - 6) // kills + rng.randrange(3), process)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    llama_jax.run("train", recipe_path, "--run-dir", "killed")
    assert_same_run(llama_jax.folder / "undisturbed", killed, config, NUM_STEPS)


def test_a_preempted_run_saves_and_goes_on(llama_jax, config, one_device):
    recipe_path = llama_jax.recipe(config)
    process = llama_jax.start("train", recipe_path, "--run-dir", "run", "--json")
    wait_for_step(llama_jax.folder / "run", 2, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    summary = json.loads(out)
    assert summary["stopped_by"] == "SIGTERM" and 2 <= summary["step"] < NUM_STEPS
    # Not at an interval of the config, but where it stood.
    saved = Checkpointer(llama_jax.folder / "run/checkpoints", read_only=True)
    assert saved.latest_step() == summary["step"]

    done = llama_jax.run("train", recipe_path, "--run-dir", "run")
    assert f"resumed at step {summary['step']}" in done.stderr
    llama_jax.run("train", recipe_path, "--run-dir", "undisturbed")
    assert_same_run(llama_jax.folder / "undisturbed", saved.directory.parent, config, NUM_STEPS)


def test_a_branch_is_the_straight_run_with_another_end(llama_jax, config, one_device):
    """A plateau can be continued to any length, or cooled down from where it stands."""
    plateau = dataclasses.replace(
        config, schedule=dataclasses.replace(config.schedule, decay_steps=0)
    )
    llama_jax.run("train", llama_jax.recipe(plateau, "plateau"), "--run-dir", "plateau",
                  "--train.num-steps", "20")  # fmt: skip
    # The straight run cools down over steps 20 to 30.
    straight = llama_jax.recipe(config, "straight")
    end = ("--train.num-steps", "30", "--schedule.decay-steps", "10")
    llama_jax.run("train", straight, "--run-dir", "straight", *end)
    llama_jax.run("train", straight, "--run-dir", "branch", "--init-from", "plateau@20", *end)
    folder = llama_jax.folder
    expected = saved_arrays(folder / "straight", config, 30)
    got = saved_arrays(folder / "branch", config, 30)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name], err_msg=name)
    assert samples_seen(folder / "branch") == range(20 * 8, 30 * 8)
    # The plateau continued is the longer plateau.
    llama_jax.run(
        "train", folder / "plateau.json", "--run-dir", "longer", "--train.num-steps", "30"
    )
    llama_jax.run("train", folder / "plateau.json", "--run-dir", "continued", "--init-from",
                  "plateau", "--train.num-steps", "30")  # fmt: skip
    longer = saved_arrays(folder / "longer", config, 30)
    for name, array in saved_arrays(folder / "continued", config, 30).items():
        np.testing.assert_array_equal(array, longer[name], err_msg=name)
    assert any((longer[name] != expected[name]).any() for name in longer)
