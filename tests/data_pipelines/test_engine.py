"""Tasks are done once for what they are made from, whoever runs them and whoever dies."""

import concurrent.futures
import ctypes
import dataclasses
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from multiprocessing import sharedctypes
from pathlib import Path

import pytest

from data_pipelines import local_pool
from data_pipelines.engine import (
    Engine,
    Listener,
    Task,
    TaskFailedError,
    in_this_process,
    run_task,
)
from data_pipelines.local_pool import LocalPool

SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letters:
    """What the test's stages are given."""

    text: str = ""
    log: str = ""


def write(config, inputs, folder, progress):
    """Writes its text after those of its inputs; notes that it ran."""
    with Path(config.log).open("a") as log:
        log.write(config.text)
    before = "".join((path / "text").read_text() for path in inputs)
    (folder / "text").write_text(before + config.text)
    progress(len(config.text))
    return {"length": len(before) + len(config.text)}


def die_once(config, inputs, folder, progress):
    """Kills its process the first time."""
    (folder / "half").write_text("half")
    log = Path(config.log)
    if not log.exists():
        log.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def die(config, inputs, folder, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(config, inputs, folder, progress):
    raise RuntimeError("no such luck")


def where(config, inputs, folder, progress):
    """Tells its process."""
    return {"process": os.getpid()}


def wait(config, inputs, folder, progress):
    """Never ends by itself."""
    threading.Event().wait()


def held_signals(config, inputs, folder, progress):
    """Tells which signals never reach its process."""
    return {"held": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())]}


class Heard(Listener):
    """Keeps what it is told."""

    def __init__(self):
        self.told, self.done, self.deaths = [], [], []

    def advanced(self, task, num_bytes):
        self.told.append((task, num_bytes))

    def finished(self, task):
        self.done.append(task)

    def died(self, tasks):
        self.deaths.append(tasks)


@pytest.fixture
def pool():
    with LocalPool(2) as pool:
        yield pool


@pytest.fixture(params=["here", "pool"])
def engine(request, tmp_path, pool):
    return Engine(tmp_path / "work", in_this_process if request.param == "here" else pool)


def chain(engine, tmp_path, first="a", last="z", **changes):
    """Runs two tasks and one that reads both; gives its text, and what ran."""
    log = tmp_path / "log"
    log.write_text("")

    def task(name, text, inputs=()):
        config = Letters(text=text, log=str(log))
        return Task(name=name, function=write, config=config, inputs=inputs, **changes)

    heard = Heard()
    two = engine.run([task("one/0", first), task("one/1", "b")], heard)
    (three,) = engine.run([task("two", last, tuple(t.folder for t in two))], heard)
    assert three.result == {"length": 3}
    assert sorted(heard.done) == ["one/0", "one/1", "two"]
    return (three.folder / "text").read_text(), "".join(sorted(log.read_text())), heard.told


def test_tasks_run_once_until_something_that_they_are_made_from_changes(engine, tmp_path):
    assert chain(engine, tmp_path)[:2] == ("abz", "abz")
    assert chain(engine, tmp_path)[:2] == ("abz", "")
    assert chain(engine, tmp_path, first="c")[:2] == ("cbz", "cz")
    assert chain(engine, tmp_path, last="y", first="c")[:2] == ("cby", "y")
    assert chain(engine, tmp_path, last="y", first="c", made_from=("x",))[:2] == ("cby", "bcy")


def test_progress_reaches_the_whole_whether_tasks_run_or_not(engine, tmp_path):
    for _ in range(2):
        told = chain(engine, tmp_path, size_bytes=7)[2]
        names = {name for name, _ in told}
        assert {n: sum(b for name, b in told if name == n) for n in names} == {
            "one/0": 7,
            "one/1": 7,
            "two": 7,
        }


def test_a_folder_that_was_not_finished_is_done_again(engine, tmp_path):
    chain(engine, tmp_path)
    (tmp_path / "work" / "two" / "done.json").unlink()
    (tmp_path / "work" / "two" / "text").write_text("rubbish")
    (tmp_path / "work" / "two.123.partial").mkdir()
    (tmp_path / "work" / "two.123.partial" / "more").write_text("rubbish")
    assert chain(engine, tmp_path)[:2] == ("abz", "z")
    assert {path.name for path in (tmp_path / "work" / "two").iterdir()} == {"text", "done.json"}
    assert not [*(tmp_path / "work").rglob("*.partial")]


def count_to_three(config, inputs, folder, progress):
    """Writes three files; waits for the other attempt after the first."""
    me, other = config.mine, config.others
    for number in range(3):
        (folder / str(number)).write_text(config.text)
        if number == 1:
            other.set()
            assert me.wait(60)
    return {"by": config.text}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """Who writes, and what it and the other one wait for."""

    text: str
    mine: threading.Event
    others: threading.Event


@pytest.mark.parametrize("is_stale_there", [False, True])
def test_of_attempts_side_by_side_the_first_that_is_whole_stays(tmp_path, is_stale_there):
    """As a cluster starts a slow task a second time."""
    if is_stale_there:
        (tmp_path / "s" / "1").mkdir(parents=True)
        (tmp_path / "s" / "1" / "old").write_text("of another config")
    gates = {name: threading.Event() for name in "ab"}

    def attempt(name, other):
        config = Attempt(name, gates[name], gates[other])
        task = Task(name="s/1", function=count_to_three, config=config)
        run_task(task, "key", tmp_path, lambda count: None)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(attempt, "a", "b")
        assert gates["b"].wait(60)
        gates["b"].clear()
        # Both are half way when either goes on.
        second = threads.submit(attempt, "b", "a")
        assert gates["a"].wait(60)
        gates["b"].set()
        for each in (first, second):
            each.result()
    names = {path.name: path.read_text() for path in (tmp_path / "s" / "1").iterdir()}
    done = json.loads(names.pop("done.json"))
    assert names == dict.fromkeys("012", done["result"]["by"])
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["1"]


def test_a_worker_of_an_earlier_build_is_told_from_ours(tmp_path):
    def overwritten(tasks, work, listener):
        ((task, _),) = tasks
        run_task(task, "the key of another build", work, lambda count: None)

    task = Task(name="s/1", function=where, config=Letters())
    with pytest.raises(TaskFailedError, match="s/1: a worker of an earlier build is still at work"):
        Engine(tmp_path, overwritten).run([task], Listener())


def test_a_failed_task_is_named_with_its_reason(engine):
    task = Task(name="sad/7", function=fail, config=Letters())
    with pytest.raises(TaskFailedError, match="sad/7: RuntimeError: no such luck"):
        engine.run([task], Listener())


def test_a_task_whose_process_dies_is_run_again(tmp_path, pool):
    engine, log = Engine(tmp_path / "work", pool), tmp_path / "log"
    others = [
        Task(name=f"w/{n}", function=write, config=Letters(text="x", log=str(tmp_path / "l")))
        for n in range(4)
    ]
    dying = Task(name="d", function=die_once, config=Letters(log=str(log)))
    heard = Heard()
    done = engine.run([dying, *others], heard)
    assert log.read_text() == "died"
    # What was done beside it may be named too.
    ((*named,),) = heard.deaths
    assert "d" in named
    assert sorted(heard.done) == ["d", "w/0", "w/1", "w/2", "w/3"]
    assert all(each.folder.is_dir() for each in done)


def test_a_task_that_always_kills_its_process_ends_the_build_by_name(tmp_path, pool):
    engine = Engine(tmp_path / "work", pool)
    heard = Heard()
    with pytest.raises(TaskFailedError, match="worse/1: the process at work on it died 3 times"):
        engine.run([Task(name="worse/1", function=die, config=Letters())], heard)
    assert heard.deaths == [["worse/1"]] * 3


def test_processes_live_from_step_to_step_and_no_longer_than_the_pool(tmp_path):
    def processes(step):
        tasks = [Task(name=f"{step}/{n}", function=where, config=Letters()) for n in range(4)]
        return {done.result["process"] for done in engine.run(tasks, Listener())}

    with LocalPool(1) as pool:
        engine = Engine(tmp_path / "work", pool)
        (process,) = processes("one")
        assert processes("two") == {process}
        # Killed between two steps, it is replaced.
        os.kill(process, signal.SIGKILL)
        (other,) = processes("three")
    for gone in (process, other):
        with pytest.raises(ProcessLookupError):
            os.kill(gone, 0)


def test_a_pool_goes_on_after_a_failure_and_in_another_folder(tmp_path, pool):
    with pytest.raises(TaskFailedError):
        Engine(tmp_path / "one", pool).run(
            [Task(name="sad", function=fail, config=Letters())], Listener()
        )
    for folder in ("one", "two"):
        task = Task(name="glad", function=where, config=Letters())
        (done,) = Engine(tmp_path / folder, pool).run([task], Listener())
        assert done.folder == tmp_path / folder / "glad"


def start_late(lock, counters, parent):
    """Starts as a worker does; says what it would go on to do."""
    local_pool._start_worker(counters, str(lock), parent)
    lock.with_name("at work").write_text("")
    threading.Event().wait()


@pytest.mark.parametrize("case", ["its folder is gone", "its parent is gone", "it is not wanted"])
def test_a_process_that_starts_after_the_build_is_over_leaves_its_folder_alone(tmp_path, case):
    lock = tmp_path / ".workers.lock"
    if case != "its folder is gone":
        lock.touch()
    before = list(tmp_path.iterdir())
    counters = sharedctypes.RawArray(ctypes.c_int64, [0, int(case == "it is not wanted")])
    parent = -1 if case == "its parent is gone" else os.getpid()
    late = SPAWN.Process(target=start_late, args=(lock, counters, parent))
    late.start()
    late.join()
    assert late.exitcode == 0
    assert list(tmp_path.iterdir()) == before


def test_a_process_that_nobody_knows_ends_when_it_is_no_longer_wanted(tmp_path):
    lock = tmp_path / ".workers.lock"
    lock.touch()
    counters = sharedctypes.RawArray(ctypes.c_int64, 2)
    unknown = SPAWN.Process(target=start_late, args=(lock, counters, os.getpid()))
    unknown.start()
    while not (tmp_path / "at work").exists():
        time.sleep(0.01)
    with lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    counters[-1] = 1
    unknown.join()
    assert unknown.exitcode == 0


def test_workers_are_not_told_of_interrupts_and_this_process_is(tmp_path, pool):
    task = Task(name="held", function=held_signals, config=Letters())
    (done,) = Engine(tmp_path / "work", pool).run([task], Listener())
    assert signal.SIGINT in done.result["held"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_of_a_folder_that_was_deleted_start_anew_and_hold_it_again(tmp_path):
    """Else a build that is killed would leave workers of which the next knows nothing."""
    work = tmp_path / "work"
    with LocalPool(1) as pool:
        for name in ("one", "two"):
            Engine(work, pool).run([Task(name=name, function=where, config=Letters())], Listener())
            with (work / ".workers.lock").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work)


def test_processes_that_cannot_start_end_the_build(tmp_path, pool, monkeypatch):
    monkeypatch.setattr("data_pipelines.local_pool._start_worker", os.abort)
    task = Task(name="never", function=where, config=Letters())
    with pytest.raises(TaskFailedError, match=r"the start of a process: .* died 3 times"):
        Engine(tmp_path, pool).run([task], Listener())


def test_what_a_listener_raises_ends_a_step(tmp_path, engine):
    class Enough(Listener):
        def finished(self, task):
            raise ValueError(f"{task} is enough")

    short = Task(name="short", function=where, config=Letters(), size_bytes=1)
    for_ever = [Task(name=f"t/{n}", function=wait, config=Letters()) for n in range(3)]
    with pytest.raises(ValueError, match="short is enough"):
        engine.run([*for_ever, short], Enough())
    # Nobody is at work any more.
    assert [path.parent.name for path in (tmp_path / "work").rglob("done.json")] == ["short"]
    (done,) = engine.run([short], Listener())
    assert done.result["process"]
