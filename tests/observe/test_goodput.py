"""An account of time in which nothing is missing and nothing counts twice."""

import json
import time

import pytest

from llama_jax.observe.goodput import GoodputLog, WallTime, WorkClock, read_goodput, read_starts


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def start(at, step):
    return {"start": True, "time": at, "step": step, "seconds": {}}


def note(at, step, end="", **seconds):
    return {"time": at, "step": step, "seconds": seconds} | ({"end": end} if end else {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "goodput.jsonl"


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when the test says so; `now` is both of the machine's."""
    now = {"t": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["t"])
    monkeypatch.setattr(time, "time", lambda: now["t"])
    return now


def test_every_moment_belongs_to_one_kind(clock):
    work = WorkClock()
    for seconds, kind in [(3, "start_up"), (5, "compile"), (1, "data_wait"), (7, "steps")]:
        clock["t"] += seconds
        assert work.lap(kind) == seconds
    assert work.total == 16 and work.training == 8


def test_a_death_costs_the_updates_made_again_and_the_time_until_the_restart(path):
    write(
        path,
        start(100, 0),
        note(110, 0, start_up=4, compile=6),
        note(130, 10, start_up=4, compile=6, steps=18, checkpoint=2),  # saved
        note(150, 15, start_up=4, compile=6, steps=36, checkpoint=2, evaluation=2),  # and lost
        start(170, 10),
        note(190, 15, start_up=5, steps=15),
    )
    seconds = read_goodput(path).seconds
    assert seconds["repeated"] == 18 + 2 and seconds["down"] == 20
    assert seconds["steps"] == 18 + 15 and seconds["evaluation"] == 0
    assert seconds["start_up"] == 9 and seconds["checkpoint"] == 2 and seconds["compile"] == 6
    assert sum(seconds.values()) == 190 - 100
    assert read_goodput(path).goodput == pytest.approx(33 / 90)


def test_a_restart_from_before_an_earlier_start_makes_that_ones_work_vain_too(path):
    write(
        path,
        start(0, 0),
        note(10, 10, steps=10),
        start(10, 10),
        note(20, 20, steps=10),
        start(20, 5),
        note(25, 7, steps=5),
    )
    seconds = read_goodput(path).seconds
    assert (seconds["repeated"], seconds["steps"], seconds["down"]) == (20, 5, 0)


def test_time_after_a_complete_run_is_nobodys(path):
    write(
        path,
        start(0, 0),
        note(10, 10, end="complete", steps=10),
        start(1000, 10),
        note(1010, 20, end="stopped", steps=10),
        start(1030, 20),
    )
    assert read_goodput(path).total == 40
    first, second, third = read_starts(path)
    assert (first.down_seconds, second.down_seconds, third.down_seconds) == (0, 0, 20)
    assert (first.end, second.end, second.last_step, third.step) == ("complete", "stopped", 20, 20)


def test_a_log_goes_on_where_a_death_cut_its_last_line(path, clock):
    log = GoodputLog(path, first := WorkClock(), step=0, write=True)
    clock["t"] += 10
    first.lap("steps")
    log.note(4)
    with path.open("a") as file:
        file.write('{"time": 1011.0, "step"')
    clock["t"] += 30
    second = WorkClock()
    clock["t"] += 2
    second.lap("start_up")
    log = GoodputLog(path, second, step=4, write=True)
    log.note(4)
    wall_time = log.total()
    assert wall_time.seconds["down"] == 30 and wall_time.seconds["steps"] == 10
    assert wall_time == read_goodput(path) and wall_time.total == 42


def test_what_came_before_the_log_was_opened_is_start_up_and_not_down(path, clock):
    GoodputLog(path, WorkClock(), step=0, write=True).note(0, end="stopped")
    clock["t"] += 30
    work = WorkClock(began=clock["t"] - 4)  # its program was read before it could take the time
    clock["t"] += 10
    log = GoodputLog(path, work, step=0, write=True)
    work.lap("start_up")
    log.note(0)
    seconds = read_goodput(path).seconds
    assert (seconds["down"], seconds["start_up"]) == (26, 14) and sum(seconds.values()) == 40


def test_of_several_processes_one_writes(path):
    GoodputLog(path, WorkClock(), step=0, write=False).note(1)
    assert not path.exists() and read_goodput(path).total == 0


def test_the_account_in_words_and_numbers():
    seconds = WallTime(dict.fromkeys(WorkClock().seconds, 0.0) | {"steps": 75.0, "down": 25.0})
    assert str(seconds) == "100.0 s, goodput 75.0%; lost: down 25.0%"
    assert seconds.metrics()["goodput"] == 0.75
    assert seconds.metrics()["wall_seconds/down"] == 25.0


def test_a_clock_that_is_set_back_or_forward_makes_no_time(path, monkeypatch):
    wall, steady = {"t": 1000.0}, {"t": 0.0}
    monkeypatch.setattr(time, "time", lambda: wall["t"])
    monkeypatch.setattr(time, "monotonic", lambda: steady["t"])
    for jump in (5_000.0, -9_000.0, 0.0):
        work = WorkClock()
        log = GoodputLog(path, work, step=0, write=True)
        steady["t"] += 10
        wall["t"] += 10 + jump
        work.lap("steps")
        log.note(1)
    seconds = read_goodput(path).seconds
    assert seconds["steps"] + seconds["repeated"] == 30 and sum(seconds.values()) == 30
