"""When a run is started again, and when it is given up."""

import pytest

from llama_jax.cli.launch.restarts import Ending, Restarts, find_cause


def ending(*codes: int, step: int = 0, first: int = 0) -> Ending:
    return Ending(codes=dict(enumerate(codes)), first=first, step=step)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ((0, 0), "done"),
        ((75, 75), "preempted"),
        ((75, 0), "preempted"),
        ((75, 1), "crashed"),
        ((0, -9), "crashed"),
        ((1, 2), "refused"),
        ((), "crashed"),
    ],
)
def test_what_codes_say_together(codes, kind):
    assert ending(*codes).kind == kind


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ({}, 0),
        ({1: 0, 0: 0}, 1),
        ({1: -6, 0: -9}, 0),  # one that was killed is seen after the one that it took along
        ({0: 1, 1: -9}, 1),
        ({1: -6, 0: 1}, 0),
        ({2: -11, 0: 1}, 2),
        ({2: 0, 1: 75, 0: 1}, 0),
        ({1: 1, 0: 1}, 1),
    ],
)
def test_the_cause_is_found_in_whatever_order_ends_are_seen(codes, cause):
    assert find_cause(codes) == cause


@pytest.mark.parametrize(("code", "kind"), [(137, "preempted"), (0, "done"), (2, "refused")])
def test_a_run_that_noted_its_save_was_stopped_whatever_ended_it_after(code, kind):
    assert Ending(codes={0: code}, first=0, step=9, saved=True).kind == kind


def test_a_crash_is_described_by_the_process_that_was_first():
    words = str(ending(-6, -9, step=1200, first=1))
    assert words == "crashed: process 1 was killed by SIGKILL, after step 1,200"


def test_a_preempted_run_starts_again_at_once_however_often():
    restarts = Restarts(limit=0)
    for step in range(1, 20):
        decision = restarts.after(ending(75, 75, step=step))
        assert decision.again and decision.wait_seconds == 0
    assert restarts.crashes == 0


def test_a_preempted_run_that_does_not_get_on_waits_and_is_given_up():
    restarts = Restarts(limit=100, step=7)
    first, second, third = (restarts.after(ending(75, step=7)) for _ in range(3))
    assert 0 < first.wait_seconds < second.wait_seconds
    assert not third.again and third.code == 1


def test_three_crashes_at_a_step_are_a_loop():
    restarts = Restarts(limit=100)
    assert restarts.after(ending(1, step=9)).again
    assert restarts.after(ending(-9, step=9)).again
    last = restarts.after(ending(1, step=9))
    assert not last.again and last.code == 1 and "after step 9: a crash loop" in last.why


def test_crashes_at_different_steps_go_on_until_the_limit():
    restarts = Restarts(limit=4)
    steps = [5, 3, 5, 3]
    decisions = [restarts.after(ending(1, step=step)) for step in steps]
    assert all(decision.again for decision in decisions)
    assert "--max-restarts=4" in restarts.after(ending(1, step=4)).why


def test_waits_double_up_to_a_minute_and_are_short_again_after_progress():
    restarts = Restarts(limit=100, step=50)
    # Never the same step twice in a row, and never further than before.
    waits = [restarts.after(ending(1, step=10 + i % 2)).wait_seconds for i in range(8)]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert restarts.after(ending(1, step=51)).wait_seconds == 1


def test_a_refused_run_is_not_started_again():
    decision = Restarts(limit=100).after(ending(2, 2))
    assert not decision.again and decision.code == 2
