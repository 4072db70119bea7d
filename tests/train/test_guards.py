"""When a run gives up, and how it is asked to stop."""

import os
import signal

import pytest

from llama_jax.data.dataset import Document
from llama_jax.train.guards import NonFiniteGuard, TrainingFailed, stop_request

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
