"""Runs as a person starts them: they learn, resume, branch off, and refuse by name."""

import dataclasses
import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.checkpoint.names import named_arrays
from llama_jax.config import CheckpointConfig, EvaluateConfig, RunConfig, WarmupStableDecay
from llama_jax.data.dataset import open_dataset
from llama_jax.model import abstract_params
from llama_jax.observe.writers import read_metrics
from llama_jax.refusal import is_refusal
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.history import documents_seen, samples_seen, token_order
from llama_jax.train.loop import train
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import abstract_state
from tests.train.conftest import PATIENCE_SECONDS, write_corpus
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
    assert_equal(expected, got)
    assert list(documents_seen(one, step)) == list(documents_seen(other, step))
    assert token_order(one, step) == token_order(other, step) > 0
    records = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    exact = ("step", "loss_nats_per_token", "samples_seen", "heldout/bits_per_byte")
    rows = [
        [{key: row[key] for key in exact if key in row} for row in told if "token_order" not in row]
        for told in records
    ]
    assert rows[0] == rows[1]
    # A run that was stopped saved after an update of its own choice too.
    orders = [{r["step"]: r["token_order"] for r in told if "token_order" in r} for told in records]
    shared = orders[0].keys() & orders[1].keys()
    assert step in shared and all(orders[0][saved] == orders[1][saved] for saved in shared)


def assert_equal(expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name], err_msg=name)


def wait_for_step(run_dir: Path, step: int, process) -> None:
    """Returns once the run has reported a step."""
    deadline = time.monotonic() + PATIENCE_SECONDS
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
    recipe_path, hold = llama_jax.held_recipe(config)
    llama_jax.run("train", recipe_path, "--run-dir", "undisturbed")
    rng = random.Random(kills)
    killed = llama_jax.folder / "killed"
    hold.after(NUM_STEPS - 1)
    for kill in range(kills):
        process = llama_jax.start("train", recipe_path, "--run-dir", "killed")
        # Later with every kill, so that the runs get on; some fall into a save.
        wait_for_step(killed, 2 + kill * (NUM_STEPS - 6) // kills + rng.randrange(3), process)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    hold.release()
    llama_jax.run("train", recipe_path, "--run-dir", "killed")
    assert_same_run(llama_jax.folder / "undisturbed", killed, config, NUM_STEPS)


def test_a_damaged_newest_checkpoint_is_set_aside_and_its_updates_are_made_again(
    llama_jax, config, one_device
):
    recipe_path = llama_jax.recipe(config)
    llama_jax.run("train", recipe_path, "--run-dir", "run")
    run, whole = llama_jax.folder / "run", llama_jax.folder / "whole"
    shutil.copytree(run, whole)
    newest = run / f"checkpoints/{NUM_STEPS}"
    files = (path for path in newest.rglob("*") if path.is_file())
    victim = max(files, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    remains = victim.read_bytes()

    again = llama_jax.run("train", recipe_path, "--run-dir", "run")
    assert f"DAMAGED: the checkpoint of step {NUM_STEPS} " in again.stderr
    assert victim.name in again.stderr and "resumed at step 35" in again.stderr
    aside = newest.with_name(f"{NUM_STEPS}.damaged")
    assert (aside / victim.relative_to(newest)).read_bytes() == remains
    assert_same_run(whole, run, config, NUM_STEPS)


def test_a_full_disk_ends_a_run_that_names_its_last_good_step_and_goes_on(
    llama_jax, config, small_disk
):
    path, run = llama_jax.recipe(config), small_disk / "run"
    filling = ("--checkpoint.every-steps", "1", "--checkpoint.keep-last", "1000")
    failed = llama_jax.run("train", path, "--run-dir", run, *filling, expect=1)
    assert "llama-jax train: failed: Checkpoint " in failed.stderr
    assert "Traceback" not in failed.stderr
    (named,) = re.findall(r"Step (\d+) is the last good one", failed.stderr)
    saved = Checkpointer(run / "checkpoints", read_only=True)
    assert int(named) == saved.latest_good_step(deep=True) < NUM_STEPS
    for step in saved.steps()[:-1]:  # room again
        shutil.rmtree(run / f"checkpoints/{step}")
    done = llama_jax.run("train", path, "--run-dir", run, "--checkpoint.every-steps", "1000")
    assert f"resumed at step {named}" in done.stderr


def test_a_batch_that_grows_survives_kills_before_and_after_it_does(llama_jax, config, one_device):
    train = dataclasses.replace(config.train, num_steps=30, batch_ramp=((12, 16), (20, 24)))
    config = dataclasses.replace(config, train=train)
    recipe_path, hold = llama_jax.held_recipe(config)
    done = llama_jax.run("train", recipe_path, "--run-dir", "undisturbed", "--json")
    assert "30 steps of 8 rows, then 16 from step 12, then 24 from step 20" in done.stderr
    assert "batch: 16 rows from step 12 on" in done.stderr
    consumed = 12 * 8 + 8 * 16 + 10 * 24
    summary = json.loads(done.stdout)
    assert (summary["samples"], summary["tokens"]) == (consumed, consumed * 16)

    killed = llama_jax.folder / "killed"
    for held in (14, 24):  # goes on from 10, before it grows, and from 20, where it does
        hold.after(held)
        process = llama_jax.start("train", recipe_path, "--run-dir", "killed")
        wait_for_step(killed, held - 2, process)
        process.kill()
        process.communicate()
    hold.release()
    llama_jax.run("train", recipe_path, "--run-dir", "killed")
    assert_same_run(llama_jax.folder / "undisturbed", killed, config, 30)
    dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
    firsts = [range(96), range(96, 96 + 128), range(96 + 128, consumed)]
    assert samples_seen(killed) == [range(consumed)]
    seen = {document for span in firsts for document in dataset.documents_of(span[0], len(span))}
    assert set(documents_seen(killed)) == seen


def test_a_preempted_run_saves_and_goes_on(llama_jax, config, one_device):
    recipe_path, hold = llama_jax.held_recipe(config)
    hold.after(8)
    process = llama_jax.start("train", recipe_path, "--run-dir", "run", "--json")
    wait_for_step(llama_jax.folder / "run", 2, process)
    process.send_signal(signal.SIGTERM)
    hold.release()
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
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
    config = dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=10, keep_last=9))
    recipes = {
        name: llama_jax.recipe(
            dataclasses.replace(config, schedule=WarmupStableDecay(warmup_steps=2, decay_steps=n)),
            name,
        )
        for name, n in {"plateau": 0, "cooled": 10}.items()
    }
    for name, path in recipes.items():
        llama_jax.run("train", path, "--run-dir", name)
        branch = ("--run-dir", f"{name}_branch", "--init-from", "plateau@30")
        llama_jax.run("train", path, *branch)

    def saved(name: str, step: int) -> dict[str, np.ndarray]:
        return saved_arrays(llama_jax.folder / name, config, step)

    assert_equal(saved("plateau", 30), saved("cooled", 30))
    assert_equal(saved("plateau", 40), saved("plateau_branch", 40))
    assert_equal(saved("cooled", 40), saved("cooled_branch", 40))
    assert not np.array_equal(
        saved("plateau", 40)["params.embed.table"], saved("cooled", 40)["params.embed.table"]
    )
    folder = llama_jax.folder / "cooled_branch"
    assert samples_seen(folder) == [range(30 * 8, 40 * 8)]

    seen = llama_jax.run("data", "seen", folder).stdout.splitlines()
    documents = list(documents_seen(folder))
    assert [line.split("\t")[2] for line in seen] == [document.id for document in documents]
    told = json.loads(llama_jax.run("data", "seen", folder, "--json").stdout)
    assert told["documents"] == [document._asdict() for document in documents]
    assert "there are 40" in llama_jax.run("data", "seen", folder, "--step", "7", expect=2).stderr

    # Where it came from is kept: another origin is refused, and so is a step that is not there.
    asked = ("train", recipes["cooled"], "--run-dir", folder, "--init-from")
    assert "began from" in llama_jax.run(*asked, "cooled@20", expect=2).stderr
    assert "there are: 10, 20, 30, 40" in llama_jax.run(*asked, "plateau@35", expect=2).stderr


def test_a_folder_belongs_to_one_process_and_one_config(llama_jax, config):
    path = llama_jax.recipe(config)
    # No checkpoint comes: with one of its first steps, the length might change.
    asked = ("--train.num-steps", "100000", "--checkpoint.every-steps", "100000")
    process = llama_jax.start("train", path, "--run-dir", "run", *asked)
    try:
        wait_for_step(llama_jax.folder / "run", 1, process)
        second = llama_jax.run("train", path, "--run-dir", "run", expect=2)
        assert f"pid {process.pid}" in second.stderr
    finally:
        process.kill()
        process.communicate()
    other = llama_jax.run("train", path, "--run-dir", "run", "--optimizer.peak-lr", "0.5", expect=2)
    assert "optimizer.peak_lr: 0.01 -> 0.5" in other.stderr
    assert "train.num_steps: 100000 -> 40" in other.stderr


def damage(shard: Path, document_id: str) -> None:
    """Changes a record, but not its length."""
    content, name = shard.read_bytes(), document_id.encode()
    assert content.count(name) == 1
    shard.write_bytes(content.replace(name, b"?" * len(name)))


@pytest.mark.parametrize(("update", "failure"), [(1, ValueError), (6, TrainingFailed)])
def test_a_request_is_wrong_before_the_first_update_and_later_the_work_fails(
    tmp_path, one_device, update, failure
):
    write_corpus(tmp_path / "data", {"up": 1})
    config = tiny_config(data__directory=str(tmp_path / "data"), train__num_steps=10)
    dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
    before = dataset.documents_of(0, 8 * (update - 1)) if update > 1 else []
    new = [d for d in dataset.documents_of(8 * (update - 1), 8) if d not in before]
    # Ids of three digits are the beginning of no other.
    victim = next(document.id for document in new if int(document.id.split("/")[1]) >= 100)
    for shard in (tmp_path / "data/up").glob("*train*"):
        if victim.encode() in shard.read_bytes():
            damage(shard, victim)
    with pytest.raises(failure, match="is damaged") as failed:
        train(config, tmp_path / "run")
    assert is_refusal(failed.value) == (failure is ValueError)


def test_a_run_that_is_not_finite_ends_with_its_step_and_documents(llama_jax, config):
    # A z-loss beyond float32 makes every gradient infinite.
    recipe_path = llama_jax.recipe(
        dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, z_loss=3e38, max_skipped_updates=3),
        )
    )
    failed = llama_jax.run("train", recipe_path, "--run-dir", "run", expect=1)
    assert "step 3: the loss" in failed.stderr and "in a row: 3" in failed.stderr
    dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
    read = dataset.documents_of(16, 8)
    assert f"{read[0].source}: {read[0].id}" in failed.stderr
    assert "Traceback" not in failed.stderr
