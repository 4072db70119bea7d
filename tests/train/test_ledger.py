"""Each update is reported, in intervals of the config's length and a last one that may be short."""

import jax.numpy as jnp
import pytest

from llama_jax.config import CheckpointConfig, EvaluateConfig, LogConfig
from llama_jax.observe.goodput import WorkClock
from llama_jax.observe.writers import read_metrics
from llama_jax.train.ledger import Ledger
from llama_jax.train.loop import train
from tests.train.tiny_run import tiny_config


def test_the_last_interval_is_reported_though_it_is_short():
    reports = []
    ledger = Ledger([], 4, lambda *report: reports.append(report), WorkClock())
    for step in range(1, 11):
        numbers = {"loss_nats_per_token": float(step), "tokens": 2.0, "skipped": 0.0}
        ledger.add(step, {name: jnp.float32(value) for name, value in numbers.items()})
    ledger.end()
    ledger.end()  # nothing is told twice
    told = [
        (step, metrics["loss_nats_per_token"], updates) for step, metrics, updates, _ in reports
    ]
    assert told == [(4, 2.5, 4), (8, 6.5, 4), (10, 9.5, 2)]


def test_a_run_ends_with_its_last_update_in_the_log(corpus, tmp_path, one_device):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=7,
        log=LogConfig(every_steps=5, tensorboard=False),
        checkpoint=CheckpointConfig(every_steps=100),
        evaluate=EvaluateConfig(num_batches=1),
    )
    outcome = train(config, tmp_path / "run")
    rows = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if "grad_norm" in r]
    assert [(row["step"], row["samples_seen"]) for row in rows] == [(5, 40), (7, 56)]
    assert outcome.loss_nats_per_token == pytest.approx(rows[-1]["loss_nats_per_token"])
