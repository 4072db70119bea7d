"""What the launcher does with processes that end in every way; they are shells, so it is quick."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from llama_jax.cli.launch import main
from llama_jax.cli.launch.state import LaunchState, held, process_state, standing_of
from llama_jax.cli.launch.supervisor import Command, Supervisor
from tests.train.conftest import PATIENCE_SECONDS

# Makes a step of progress for each attempt, as a run does.
STEP = 'n=$(wc -l < metrics.jsonl); echo "{\\"step\\": $((n + 1))}" >> metrics.jsonl; '


# Of a process whose number lies in the file `other`: the launcher has seen its end.
SEEN = "until test -s other; do sleep 0.05; done; while kill -0 $(cat other); do sleep 0.05; done; "


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    """Runs shell commands as the processes of a run; returns the exit code and the state."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    waits: list[float] = []
    monkeypatch.setattr(Supervisor, "_wait", lambda self, seconds: waits.append(seconds))
    monkeypatch.setattr("llama_jax.cli.launch.supervisor._SETTLE_SECONDS", 0.3)

    def run(
        *scripts: str,
        max_restarts: int = 10,
        restart_preempted: bool = True,
        stop_seconds: float = PATIENCE_SECONDS,
    ):
        supervisor = Supervisor(
            LaunchState(platform="local", name="run", run_dir=str(tmp_path), argv=[]),
            tmp_path,
            lambda: [Command(argv=["sh", "-c", script]) for script in scripts],
            max_restarts=max_restarts,
            stop_seconds=stop_seconds,
            restart_preempted=restart_preempted,
        )
        code = supervisor.run()
        return code, LaunchState.load(tmp_path), waits

    return run


def test_a_run_is_done_when_all_are(supervise, tmp_path):
    code, state, _ = supervise("echo one", "sleep 0.2; echo two")
    assert (code, state.phase, state.attempt) == (0, "done", 1)
    assert (tmp_path / "logs/process-1.log").read_text().endswith("two\n")


def test_one_that_is_killed_takes_the_others_down_and_all_start_again(supervise):
    second = f"{STEP} test $n = 2 || kill -9 $$"
    first = "until grep -q 3 metrics.jsonl; do sleep 0.05; done"
    code, state, waits = supervise(first, second)
    assert (code, state.phase, state.attempt) == (0, "done", 3)
    assert [incident["codes"] for incident in state.incidents] == [{"0": -9, "1": -9}] * 2
    words = "process 1 was killed by SIGKILL, after step 1; process 0 was still running"
    assert words in state.incidents[0]["what"]
    assert waits == [1, 1]


@pytest.mark.parametrize("end", ["exit 1", "kill -ABRT $$"])
def test_one_that_was_killed_is_named_though_the_end_of_another_was_seen_first(
    supervise, monkeypatch, end
):
    monkeypatch.setattr("llama_jax.cli.launch.supervisor._SETTLE_SECONDS", PATIENCE_SECONDS)
    first = f"{STEP} test $n = 1 || {{ echo $$ > number; mv number other; {end}; }}"
    second = f"test -e again || {{ touch again; {SEEN} kill -9 $$; }}"
    code, state, _ = supervise(first, second)
    assert (code, state.attempt) == (0, 2)
    assert "process 1 was killed by SIGKILL" in state.incidents[0]["what"]


def test_a_crash_loop_ends_and_shows_the_log(supervise, capsys):
    code, state, waits = supervise("sleep 600", "echo the reason; exit 1")
    assert (code, state.phase, state.attempt) == (1, "failed", 3)
    said = capsys.readouterr().err
    assert "a crash loop. Last lines of" in said and "process-1.log:\n" in said
    assert "  the reason" in said
    assert waits == [2, 4]


def test_restarts_have_a_limit(supervise):
    code, state, _ = supervise(f"{STEP} exit 1", max_restarts=5)
    assert (code, state.attempt, len(state.incidents)) == (1, 6, 6)


def test_a_refused_request_is_not_tried_again(supervise):
    assert supervise("exit 2", "sleep 600")[:1] == (2,)


def test_a_preempted_run_starts_again_at_once_or_hands_over(supervise):
    preempted = f"{STEP} test $n = 3 || exit 75"
    code, state, waits = supervise(preempted)
    assert (code, state.attempt) == (0, 4) and waits == [0, 0, 0]
    code, state, _ = supervise("exit 75", restart_preempted=False)
    assert (code, state.phase, state.attempt) == (75, "stopped", 5)


def test_a_launch_goes_on_counting_where_the_one_before_it_ended(supervise):
    _, first, _ = supervise("exit 1", max_restarts=0)
    code, state, _ = supervise("true")
    assert (code, state.attempt, state.started) == (0, 2, first.started)
    assert state.incidents == first.incidents and len(state.incidents) == 1


def test_one_that_ends_late_is_no_success(supervise, monkeypatch):
    monkeypatch.setattr(Supervisor, "_patience", lambda self, code: 0.2)
    code, state, _ = supervise("exit 0", "sleep 600")
    assert (code, state.phase) == (1, "failed")


def signalled_when_there(*paths) -> None:
    """Has this process get SIGTERM once all these files are there."""

    def stop():
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()


def test_a_signal_is_passed_on_and_the_save_waited_for(supervise, tmp_path):
    save = "trap 'sleep 0.3; echo saved; exit 75' TERM; touch {}; while :; do sleep 0.05; done"
    ready = [tmp_path / "ready-0", tmp_path / "ready-1"]
    signalled_when_there(*ready)
    before = signal.getsignal(signal.SIGTERM)
    code, state, _ = supervise(*(save.format(path.name) for path in ready))
    assert (code, state.phase, state.attempt) == (75, "stopped", 1)
    for index in range(2):
        assert "saved" in (tmp_path / f"logs/process-{index}.log").read_text()
    assert signal.getsignal(signal.SIGTERM) == before


DEAF = "trap '' TERM; touch ready; while :; do sleep 0.05; done"


def test_a_run_that_is_killed_at_the_deadline_of_its_save_is_not_called_saved(
    supervise, tmp_path, capsys
):
    signalled_when_there(tmp_path / "ready")
    code, state, _ = supervise(DEAF, stop_seconds=0.2)
    assert (code, state.phase, state.attempt) == (1, "failed", 1)
    assert [incident["codes"] for incident in state.incidents] == [{"0": -9}]
    assert "did not end by saving" in capsys.readouterr().err


NOTES = [
    {"start": True, "time": 1.0, "step": 0, "seconds": {}},
    {"time": 2.0, "step": 9, "seconds": {}, "end": "stopped"},
]


def test_what_ends_a_run_after_it_noted_that_it_saved_costs_nothing(supervise, tmp_path):
    """As `srun` does, which kills other tasks when the first one leaves with 75."""
    for index, note in enumerate(NOTES):
        (tmp_path / f"note-{index}").write_text(json.dumps(note) + "\n")
    saved = "cat note-0 note-1 >> goodput.jsonl; exit 137"
    code, state, _ = supervise(saved, restart_preempted=False)
    assert (code, state.phase, state.incidents) == (75, "stopped", [])
    # A note of an attempt before says nothing of this one.
    code, state, _ = supervise("exit 137", restart_preempted=False, max_restarts=0)
    assert (code, state.phase) == (1, "failed")


def test_a_second_launch_of_a_run_is_refused_and_the_first_stays_the_one_that_is_stopped(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    script = "trap 'exit 75' TERM; touch ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "llama_jax.cli.main", "launch", "supervise", "run", "--"]
    launcher = subprocess.Popen([*command, "sh", "-c", script])
    with launcher as first, contextlib.ExitStack() as failed:
        failed.callback(first.terminate)  # or a test that fails would wait for it
        while not ((tmp_path / "ready").exists() and (tmp_path / "run/launch.json").exists()):
            time.sleep(0.01)
        with pytest.raises(ValueError, match=f"launched already, by pid {first.pid} on "):
            main(["supervise", "run", "--", "false"])
        state = LaunchState.load(tmp_path / "run")
        assert (state.pid, state.phase, state.attempt) == (first.pid, "running", 1)
        assert main(["stop", "run"]) == 0
        assert "run: stopped" in capsys.readouterr().err
        failed.pop_all()
    assert first.returncode == 75


def test_a_launch_that_another_host_keeps_is_waited_for_before_it_is_refused(tmp_path, monkeypatch):
    """Its lock may be what the disk has left of a host that died."""
    state = LaunchState(platform="supervise", name="run", run_dir="run", argv=[])
    state.host = "elsewhere"
    state.save(tmp_path)
    monkeypatch.setattr("llama_jax.cli.launch.state._PATIENCE_SECONDS", 0.0)
    with held(tmp_path), pytest.raises(ValueError, match="by pid 0 on elsewhere"), held(tmp_path):
        pass
    monkeypatch.undo()
    first = contextlib.ExitStack()
    first.enter_context(held(tmp_path))
    monkeypatch.setattr("llama_jax.cli.launch.state.time.sleep", lambda seconds: first.close())
    with held(tmp_path):
        pass


def test_the_state_names_the_host_on_which_the_launcher_runs(tmp_path, monkeypatch):
    """A job runs elsewhere than who submitted it."""
    monkeypatch.chdir(tmp_path)
    state = LaunchState(platform="slurm", name="run", run_dir="run", argv=["slurm"])
    state.host, state.commands = "login", {"stop": ["true"]}
    state.save(tmp_path / "run")
    assert main(["supervise", "run", "--", "true"]) == 0
    state = LaunchState.load(tmp_path / "run")
    assert (state.host, state.pid) == (socket.gethostname(), os.getpid())
    assert state.commands == {"stop": ["true"]} and state.platform == "slurm"


def test_the_command_line_supervises_any_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["supervise", "run", "--", "sh", "-c", "exit 75"]) == 75
    assert main(["supervise", "run", "--max-restarts", "3", "--", "true"]) == 0
    state = LaunchState.load(tmp_path / "run")
    assert (state.platform, state.attempt, state.phase) == ("supervise", 2, "done")


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """A run below runs/ whose launcher is gone."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/mine"
    for step in ("5", "10", "15.saving"):
        (folder / "checkpoints" / step).mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 9}\n{"step": 12}\n{"st')
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **TEXT)
    state = LaunchState(platform="local", name="mine", run_dir="runs/mine", argv=[])
    state.pid = int(gone.stdout)
    state.incidents.append({"time": 0.0, "what": "crashed: process 1", "step": 9})
    state.save(folder)
    return folder


TEXT = {"capture_output": True, "text": True, "check": True}


def test_status_says_how_far_a_run_is_whoever_died(launched, capsys):
    assert main(["status", "mine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["checkpoint"], found["phase"]) == (12, 10, "failed")
    assert main(["status", "mine"]) == 0
    said = capsys.readouterr().out
    assert "crashed: process 1" in said and "last checkpoint  10" in said


def test_stop_spares_a_stranger_with_the_launchers_pid(launched):
    with subprocess.Popen(["sleep", "600"]) as stranger:
        state = LaunchState.load(launched)
        state.pid = stranger.pid
        state.save(launched)
        assert main(["stop", "mine"]) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_an_unknown_name_is_answered_with_those_that_were_launched(launched):
    with pytest.raises(ValueError, match=r"NAME='nime' has no launch.json.*There are: mine"):
        main(["status", "nime"])


def test_a_stopped_process_is_told_from_one_that_runs():
    with subprocess.Popen(["sleep", "600"]) as process:
        assert process_state(process.pid) == "running"
        process.send_signal(signal.SIGSTOP)
        while process_state(process.pid) != "stopped":
            pass
        process.kill()
        process.wait()
        assert process_state(process.pid) == "gone"


def test_a_folder_without_a_run_stands_nowhere(tmp_path):
    standing = standing_of(tmp_path)
    assert (standing.step, standing.seconds_silent, standing.checkpoint) == (0, None, None)
