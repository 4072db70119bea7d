"""A run in a bucket that is killed goes on elsewhere as if nothing had happened."""

import shutil
import time

import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.observe.goodput import NAME, read_starts
from llama_jax.observe.writers import read_metrics
from llama_jax.remote.lease import LEASE
from llama_jax.remote.objects import Objects
from llama_jax.remote.run_files import read_only_copy
from llama_jax.train.history import token_order
from llama_jax.train.taint import read_taints
from tests.remote.stores import open_store
from tests.train.conftest import PATIENCE_SECONDS, Hold
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.test_processes import finish, processes, spiking_recipe  # noqa: F401 (fixture)
from tests.train.tiny_run import tiny_config

NUM_STEPS = 20
HELD = """
from llama_jax.train.loop import _Run

def update(self, done, state, really=_Run._update):
    while Path({hold!r}).exists() and done >= 11:
        time.sleep(0.01)
    return really(self, done, state)

if not hasattr(_Run, "held"):
    _Run.held, _Run._update = True, update
"""


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_killed_run_goes_on_bit_for_bit_though_every_tenth_request_fails(
    llama_jax, corpus, tmp_path, one_device, scheme
):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=NUM_STEPS,
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(every_steps=10, num_batches=2),
    )
    llama_jax.run("train", llama_jax.recipe(config), "--run-dir", "undisturbed")
    recipe, hold = llama_jax.held_recipe(config)
    hold.after(8)
    with open_store(scheme, tmp_path) as store:
        files = [path for path in corpus.rglob("*") if path.is_file()]
        Objects(store.url.parent / "tokens").write_all(
            (path.relative_to(corpus).as_posix(), path.read_bytes()) for path in files
        )
        tokens = ["--data.directory", str(store.url.parent / "tokens")]
        store.gateway.fails = lambda number: number % 10 == 0
        process = llama_jax.start(
            "train", recipe, "--run-dir", str(store.url), *tokens, log=tmp_path / "log"
        )
        checkpoints = Checkpointer(store.url / "checkpoints", read_only=True)
        while checkpoints.steps() != [5] and process.poll() is None:
            time.sleep(0.2)
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
        assert checkpoints.steps() == [5], (tmp_path / "log").read_text()
        assert Objects(store.url).read(LEASE), "a killed process leaves its lease"
        shutil.rmtree(tmp_path / "cache")  # as on another machine
        hold.release()
        llama_jax.run("train", recipe, "--run-dir", str(store.url), *tokens)
        assert Objects(store.url).read(LEASE) is None
        assert store.gateway.failed
        there = read_only_copy(store.url)
        assert_equal(
            saved_arrays(tmp_path / "undisturbed", config, NUM_STEPS),
            saved_arrays(there, config, NUM_STEPS),
        )
        losses = [
            {r["step"]: r["loss_nats_per_token"] for r in read_metrics(path) if "grad_norm" in r}
            for path in (tmp_path / "undisturbed/metrics.jsonl", there / "metrics.jsonl")
        ]
        assert losses[0] == losses[1] and len(losses[0]) == NUM_STEPS
        scored = llama_jax.run("eval", str(store.url), "--json")
        assert f'"run_dir": "{store.url}"' in scored.stdout
        llama_jax.run("report", str(store.url))
        assert {"loss.png", "report.html"} <= set(Objects(store.url).names(skip="checkpoints/"))


@pytest.mark.long
def test_two_processes_in_a_bucket_go_back_are_killed_and_go_on_as_in_a_folder(
    processes,  # noqa: F811
    corpus,
    tmp_path,
    one_device,
):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=12,
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(num_batches=1),
    )
    recipe = spiking_recipe(config, tmp_path)
    finish(processes.start(recipe, tmp_path / "folder", 2))
    hold = Hold(tmp_path / "hold")
    recipe.write_text(recipe.read_text() + HELD.format(hold=str(hold.path)))
    hold.after(11)
    with open_store("gs", tmp_path) as store:
        started = processes.start(recipe, store.url, 2)
        checkpoints = Checkpointer(store.url / "checkpoints", read_only=True)
        while checkpoints.steps() != [5, 10] and started[0].poll() is None:
            time.sleep(0.2)
        for process in started:
            process.kill()
        told = [process.communicate()[1] for process in started]
        assert checkpoints.steps() == [5, 10], told
        shutil.rmtree(tmp_path / "cache")  # as on other machines
        hold.release()
        # As if it had not spiked: what it did about that is in the bucket.
        finish(processes.start(tmp_path / "config.json", store.url, 2))
        there = read_only_copy(store.url)
        [taint] = read_taints(store.url)
        assert taint.applied and (taint.since_step, taint.by) == (5, "spike")
        assert [start.step for start in read_starts(there / NAME)] == [0, 5, 10]
        assert_equal(saved_arrays(tmp_path / "folder", config, 12), saved_arrays(there, config, 12))
        assert token_order(tmp_path / "folder", 12) == token_order(there, 12) > 0
