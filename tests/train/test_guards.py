"""When a run gives up, and how it is asked to stop."""

import dataclasses
import json
import os
import shutil
import signal

import pytest

from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.data.dataset import Document
from llama_jax.observe.writers import read_metrics
from llama_jax.train.guards import NonFiniteGuard, TrainingFailed, stop_request
from llama_jax.train.loop import train
from tests.train.tiny_run import tiny_config

GOOD = {"skipped": 0.0, "loss_nats_per_token": 1.0, "grad_norm": 1.0}
BAD = {"skipped": 1.0, "loss_nats_per_token": float("nan"), "grad_norm": 1.0}


def make_guard(max_in_a_row, documents=1):
    return NonFiniteGuard(
        max_in_a_row, lambda step: [Document("web", n, f"{step}/{n}") for n in range(documents)]
    )


def test_only_skipped_updates_in_a_row_end_a_run():
    guard = make_guard(2)
    for step, metrics in enumerate([BAD, GOOD, BAD, GOOD, BAD], start=1):
        guard.see(step, metrics)
    with pytest.raises(TrainingFailed, match=r"step 6: the loss .nan.*in a row: 2"):
        guard.see(6, BAD)


def test_a_killed_run_counts_on_where_its_checkpoint_was():
    straight = make_guard(3)
    for step, metrics in enumerate([BAD, GOOD, BAD, BAD], start=1):
        straight.see(step, metrics)
    again = NonFiniteGuard(3, lambda step: [], json.loads(json.dumps(straight.seen)))
    assert again.skipped == straight.skipped == 3
    with pytest.raises(TrainingFailed, match=r"step 5: .*in a row: 3"):
        again.see(5, BAD)


def test_a_restart_resets_no_count(corpus, tmp_path, one_device):
    config = tiny_config(
        data__directory=str(corpus),
        train__z_loss=3e38,  # beyond float32: no gradient is finite
        train__max_skipped_updates=6,
        checkpoint=CheckpointConfig(every_steps=4),
        evaluate=EvaluateConfig(num_batches=1),
    )
    for _ in range(2):  # the second goes on from 4
        with pytest.raises(TrainingFailed, match=r"step 6: .*in a row: 6"):
            train(config, tmp_path / "run")

    patient = dataclasses.replace(
        config, train=dataclasses.replace(config.train, num_steps=9, max_skipped_updates=30)
    )
    assert train(patient, tmp_path / "patient").skipped_updates == 9
    shutil.rmtree(tmp_path / "patient/checkpoints/9")
    assert train(patient, tmp_path / "patient").skipped_updates == 9
    rows = read_metrics(tmp_path / "patient/metrics.jsonl")
    assert [r["skipped_updates"] for r in rows if "skipped_updates" in r] == [*range(1, 10)]


def test_spikes_that_are_passed_over_end_a_run_too_and_are_called_so():
    guard = make_guard(2)
    spike = {"skipped": 1.0, "loss_nats_per_token": 9.0, "grad_norm": 1.0}
    guard.see(1, spike)
    with pytest.raises(TrainingFailed, match=r"is a spike \(guards.on_spike=skip\); .*row: 2"):
        guard.see(2, spike)


def test_the_documents_of_the_step_are_named_but_not_all_of_thousands():
    with pytest.raises(TrainingFailed) as failure:
        make_guard(1, documents=25).see(7, BAD)
    text = str(failure.value)
    assert "web: 7/0" in text and "web: 7/19" in text and "7/20" not in text
    assert "and 5 more" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request_and_the_second_one_an_order(number):
    orders = []
    before = signal.signal(number, lambda *_: orders.append(number))
    try:
        with stop_request() as stop:
            assert not stop.at(1)
            os.kill(os.getpid(), number)
            assert stop.at(2) and stop.name == number.name and not orders
            os.kill(os.getpid(), number)
            assert orders == [number]
        os.kill(os.getpid(), number)
        assert len(orders) == 2
    finally:
        signal.signal(number, before)
