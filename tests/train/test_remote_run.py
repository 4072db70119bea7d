"""A run in a bucket that is killed goes on elsewhere as if nothing had happened."""

import shutil
import time

import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.observe.writers import read_metrics
from llama_jax.remote.lease import LEASE
from llama_jax.remote.objects import Objects
from llama_jax.remote.run_files import read_only_copy
from tests.remote.stores import open_store
from tests.train.conftest import PATIENCE_SECONDS
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config

NUM_STEPS = 20


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
            {row["step"]: row.get("loss_nats_per_token") for row in read_metrics(path)}
            for path in (tmp_path / "undisturbed/metrics.jsonl", there / "metrics.jsonl")
        ]
        assert losses[0] == losses[1] and len(losses[0]) == NUM_STEPS
        scored = llama_jax.run("eval", str(store.url), "--json")
        assert f'"run_dir": "{store.url}"' in scored.stdout
        llama_jax.run("report", str(store.url))
        assert {"loss.png", "report.html"} <= set(Objects(store.url).names(skip="checkpoints/"))
