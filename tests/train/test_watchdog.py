"""A process that hangs says where, and ends; one that works is left alone."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from llama_jax.cli.launch.state import process_state
from llama_jax.config import GuardConfig
from llama_jax.observe.host_table import read_hosts
from llama_jax.observe.incidents import read_incidents
from llama_jax.train.deadline import UpdateDeadline
from llama_jax.train.hosts import Hosts
from llama_jax.train.watchdog import Watchdog
from tests.train.conftest import PATIENCE_SECONDS
from tests.train.test_loop import wait_for_step
from tests.train.test_processes import processes  # noqa: F401 (fixture)
from tests.train.tiny_run import tiny_config

QUICK = GuardConfig(
    step_deadline_seconds=0.1, other_deadline_seconds=0.4, stop_deadline_seconds=0.8
)


@pytest.fixture
def ends(monkeypatch):
    """Events of the exit codes with which the process would have ended."""
    codes, ended = [], threading.Event()

    def end(code):
        codes.append(code)
        ended.set()
        sys.exit()  # of the watchdog's thread

    monkeypatch.setattr(os, "_exit", end)
    return codes, ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_that_does_not_end_is_named_with_the_stacks_of_all_threads(tmp_path, ends, capfd):
    codes, ended = ends
    with Watchdog(tmp_path, QUICK, Hosts()) as watchdog:
        watchdog.expect(11, "update 12")
        assert ended.wait(PATIENCE_SECONDS)
    assert codes == [1]
    told = capfd.readouterr().err
    for words in ("process 0 of 1", f"pid {os.getpid()}", "update 12 did not end within 0.1 s"):
        assert words in told
    stacks = (tmp_path / "incidents/step_11_process_0.txt").read_text()
    assert "test_watchdog.py" in stacks and "_watch" in stacks  # of this thread and of its own
    [incident] = read_incidents(tmp_path)
    assert (incident.kind, incident.step) == ("hang", 11) and "step_11" in incident.text


def test_what_gets_on_is_left_alone_however_long_it_all_takes(tmp_path, ends, monkeypatch):
    codes, _ = ends
    watchdog = Watchdog(tmp_path, QUICK, Hosts())
    waits = iter(range(200))  # of the thread, one after another in no time

    def wait(seconds):
        turn = next(waits, None)
        if turn is not None and turn % 19 == 0:
            watchdog.expect(turn, f"update {turn}")
        return turn is None

    monkeypatch.setattr(watchdog, "_closed", type("Waits", (), {"wait": staticmethod(wait)}))
    watchdog._watch()
    assert not codes


@pytest.mark.parametrize(
    ("expect", "deadline"),
    [
        (lambda watchdog: watchdog.expect(1, "update 2"), 0.1),
        (lambda watchdog: watchdog.expect(1, "checkpoint 2", long=True), 0.4),
        (lambda watchdog: watchdog.expect_last_save(2), 0.8),
    ],
)
def test_a_deadline_is_counted_in_waits_and_not_read_from_a_clock(
    tmp_path, ends, monkeypatch, expect, deadline
):
    codes, _ = ends
    watchdog = Watchdog(tmp_path, QUICK, Hosts())
    expect(watchdog)
    seconds = []

    def wait(tick):
        seconds.append(tick)
        return len(seconds) > 100

    monkeypatch.setattr(watchdog, "_closed", type("Waits", (), {"wait": staticmethod(wait)}))
    monkeypatch.setattr("time.time", lambda: 1e12)
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    with pytest.raises(SystemExit):
        watchdog._watch()
    assert codes == [1]
    assert sum(seconds) == pytest.approx(deadline, rel=0.11)


def test_an_update_is_given_many_times_what_updates_take_but_not_less_than_minutes():
    def after(seconds, config, count=16):
        deadline = UpdateDeadline(config)
        for _ in range(count):
            deadline.see(seconds)
        return deadline.seconds

    assert after(40.0, GuardConfig(), count=15) == 1800  # not known yet
    assert after(40.0, GuardConfig()) == 20 * 40
    assert after(1.0, GuardConfig()) == 300
    assert after(200.0, GuardConfig()) == 1800
    assert after(1.0, GuardConfig(step_deadline_seconds=5.0)) == 5
    assert after(1.0, GuardConfig(step_deadline_medians=0.0)) == 1800
    assert after(1.0, GuardConfig(step_deadline_seconds=0.0)) == 0  # for ever


def test_what_updates_took_is_seen_and_other_work_is_not(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    watchdog = Watchdog(tmp_path, GuardConfig(), Hosts())
    took = []
    monkeypatch.setattr(watchdog._update_deadline, "see", took.append)
    watchdog.expect(1, "update 2")
    watchdog.expect(2, "update 3")
    watchdog.expect(3, "checkpoint 3", long=True)
    watchdog.expect(3, "update 4")
    assert took == [10, 10]


def test_no_deadline_waits_for_ever(tmp_path, ends, monkeypatch):
    codes, _ = ends
    watchdog = Watchdog(tmp_path, GuardConfig(step_deadline_seconds=0), Hosts())
    watchdog.expect(1, "update 2")
    ticks = iter(range(1000))
    monkeypatch.setattr(
        watchdog,
        "_closed",
        type("Waits", (), {"wait": staticmethod(lambda _: next(ticks, None) is None)}),
    )
    watchdog._watch()
    assert not codes


# On a busy machine an earlier update might take as long as the deadline: they have none.
FROM_UPDATE_11_ON = """
from llama_jax.train import watchdog

def expect(self, step, what, *, long=False, expected=watchdog.Watchdog.expect):
    expected(self, step, what, long=long)
    if step < 10:
        self._task = self._task._replace(within_seconds=0.0)

watchdog.Watchdog.expect = expect
watchdog._LONGEST_TICK_SECONDS = 0.1
"""
HANGS = """
    import ctypes, pathlib, sys, time
    from llama_jax.data.dataset import Dataset
    from llama_jax.recipe import load_recipe
    from llama_jax.train.ledger import Ledger
    from llama_jax.train.loop import train

    def batch(self, first_sample, really=Dataset.batch):
        time.sleep(3600 if {data_hang} and first_sample >= 80 else 0)
        return really(self, first_sample)

    def add(self, step, metrics, really=Ledger.add):
        really(self, step, metrics)
        if step == 11 and not {data_hang}:
            time.sleep(1)  # a tick of the watchdog, as every update of a run has them
            ctypes.PyDLL(None).sleep(3600)  # and Python's lock is not let go

    Dataset.batch, Ledger.add = batch, add
    train(load_recipe(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


@pytest.fixture
def hung(llama_jax, corpus):
    """Runs to update 11, which hangs; returns the run's folder and what was told."""

    def run(**how: bool):
        config = tiny_config(
            data__directory=str(corpus), guards=GuardConfig(step_deadline_seconds=2.0)
        )
        code = FROM_UPDATE_11_ON + textwrap.dedent(HANGS).format(**how)
        run_dir = llama_jax.folder / "run"
        done = subprocess.run(
            [sys.executable, "-c", code, llama_jax.recipe(config), run_dir],
            env=llama_jax.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 1, done.stderr
        return run_dir, done.stderr

    return run


def test_a_run_whose_data_hang_ends_at_its_deadline_and_says_where(hung):
    run_dir, told = hung(data_hang=True)
    assert "hung: process 0 of 1" in told and "update 11 did not end" in told
    assert "in _update" in told  # of the loop's thread, waiting for the batch
    [incident] = read_incidents(run_dir)
    assert (incident.kind, incident.step) == ("hang", 10)


def test_a_hang_that_holds_pythons_lock_ends_too_with_all_stacks(hung):
    _, told = hung(data_hang=False)
    assert "Timeout (0:00:0" in told and "hung:" not in told
    assert "in add" in told and "in _update" in told


SAVES_FOR_EVER = """
    import os, pathlib, signal, sys, time
    from llama_jax.checkpoint.local_folder import LocalFolder
    from llama_jax.recipe import load_recipe
    from llama_jax.train.ledger import Ledger
    from llama_jax.train.loop import train

    def add(self, step, metrics, really=Ledger.add):
        really(self, step, metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    Ledger.add, LocalFolder.write = add, lambda self, step: time.sleep(3600)
    train(load_recipe(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


def test_a_run_that_was_asked_to_stop_does_not_save_for_ever(llama_jax, corpus):
    guards = GuardConfig(stop_deadline_seconds=1.0)
    config = tiny_config(data__directory=str(corpus), guards=guards)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(SAVES_FOR_EVER),
            llama_jax.recipe(config),
            llama_jax.folder / "run",
        ],
        env=llama_jax.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 1, done.stderr
    [incident] = read_incidents(llama_jax.folder / "run")
    assert incident.step == 3
    assert "checkpoint 3, the last before a stop, did not end within 1 s" in incident.text


def test_what_a_hang_leaves_is_stored_and_no_disk_keeps_the_process(tmp_path, ends, capfd):
    codes, _ = ends
    stored = []

    def store(paths):
        stored.extend(path.relative_to(tmp_path).as_posix() for path in paths)
        raise OSError("the bucket is away")

    watchdog = Watchdog(tmp_path, QUICK, Hosts(), store)
    with pytest.raises(SystemExit):
        watchdog._end(watchdog._task)
    assert codes == [1]
    assert stored == ["incidents/step_0_process_0.txt", "incidents.jsonl"]


@pytest.mark.slow
def test_of_two_processes_the_one_that_was_stopped_is_named(
    llama_jax,
    processes,  # noqa: F811
    corpus,
    tmp_path,
):
    config = dataclasses.replace(
        tiny_config(data__directory=str(corpus), train__num_steps=100_000),
        # Not near 30 s, after which the devices of a CPU give up waiting by themselves.
        guards=GuardConfig(step_deadline_seconds=3.0),
    )
    recipe, hold = llama_jax.held_recipe(config)
    recipe.write_text(recipe.read_text() + FROM_UPDATE_11_ON)
    hold.after(10)
    first, second = processes.start(recipe, tmp_path / "run", 2)
    try:
        wait_for_step(tmp_path / "run", 8, first)
        second.send_signal(signal.SIGSTOP)
        while process_state(second.pid) != "stopped":
            time.sleep(0.01)
        hold.release()
        _, told = first.communicate(timeout=PATIENCE_SECONDS)
    finally:
        second.kill()
        second.communicate()
    assert first.returncode == 1, told
    assert "hung: process 0 of 2" in told and "silent: process 1;" in told.replace(". ", "; ")
    table = read_hosts(tmp_path / "run")
    assert table is not None and [row.index for row in table.rows] == [0, 1]
    assert [row.pid for row in table.rows] == [first.pid, second.pid]
    assert all(row.step_seconds and row.doing for row in table.rows)
    # On a busy machine one of the two may also have been slow before.
    kinds = {incident.kind for incident in read_incidents(tmp_path / "run")}
    assert "hang" in kinds <= {"hang", "slow host"}
