"""A real Slurm of one node runs the slurm launcher, where Slurm is installed."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_jax.cli.launch.state import LaunchState, standing_of
from llama_jax.observe.goodput import NAME, read_starts
from tests.launch.conftest import quiet_ports
from tests.train.conftest import PATIENCE_SECONDS
from tests.train.test_loop import assert_same_run

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# A job that queues again waits for that long.
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={controller}
SlurmdPort={daemon}
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=60
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE
"""
PROGRAM = f"{sys.executable} -m llama_jax.cli.main"
TWO_TASKS = (
    "--nodes",
    1,
    "--gpus-per-node",
    0,
    "--tasks-per-node",
    2,
    "--program",
    PROGRAM,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A controller and a node on this machine; ends with the test."""
    daemons = ("slurmctld", "slurmd")
    if os.getuid() or not all(map(shutil.which, (*daemons, "sbatch"))):
        pytest.skip("needs root and Debian's slurmctld, slurmd and slurm-client")
    folder = tmp_path / "slurm"
    (folder / "state").mkdir(parents=True)
    ports = dict(zip(("controller", "daemon"), quiet_ports(2), strict=True))
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, **ports))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    for daemon in daemons:
        subprocess.run([daemon], check=True)
    wait_until(lambda: "idle" in ask("sinfo", "--noheader", "--format=%T"))
    yield
    subprocess.run(["scancel", "--user=root"], check=False)
    for daemon in reversed(daemons):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def state_of(job: str) -> str:
    return ask("squeue", "--job", job, "--states=all", "--noheader", "--format=%T")


def wait_until(happened) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submit(llama_jax, recipe: Path, *flags: object) -> tuple[Path, str]:
    """Launches a run of two tasks; gives its folder and the number of its job."""
    done = llama_jax.run("launch", "slurm", recipe, *TWO_TASKS, "--run-dir", "run", *flags)
    return llama_jax.folder / "run", done.stderr.split()[-1]


def test_slurm_trains_what_two_processes_do_killed_and_queued_again(
    llama_jax, config, slurm, one_device
):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=120))
    # Each update waits, and none for ever: all processes agree on one at which they stop.
    recipe, hold = llama_jax.held_recipe(config, seconds=5.0)
    llama_jax.run("launch", "local", recipe, "--run-dir", "undisturbed")
    hold.after(10)
    run, job = submit(llama_jax, recipe)
    wait_until(lambda: standing_of(run).step >= 8)
    tasks = ask("pgrep", "--full", f"^{PROGRAM} train {recipe}").split()
    assert len(tasks) == 2
    os.kill(int(tasks[-1]), signal.SIGKILL)
    hold.after(22)
    wait_until(lambda: LaunchState.load(run).attempt == 2 and standing_of(run).step >= 20)
    assert "crashed" in LaunchState.load(run).incidents[0]["what"]
    # What Slurm does before the time limit and at a preemption.
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    wait_until(lambda: "Restarts=1" in ask("scontrol", "show", "job", job))
    hold.release()
    wait_until(lambda: state_of(job) == "COMPLETED")
    *_, stopped, again = read_starts(run / NAME)
    assert stopped.end == "stopped" and 20 <= stopped.last_step == again.step < 120
    assert_same_run(llama_jax.folder / "undisturbed", run, config, 120)
    assert "last checkpoint" in llama_jax.run("launch", "status", "run").stdout
    assert "done at step 120" in llama_jax.run("launch", "logs", "run").stdout


def test_a_stopped_job_saves_and_does_not_queue_again(llama_jax, config, slurm):
    recipe = llama_jax.recipe(config)
    run, job = submit(llama_jax, recipe, "--train.num-steps", 100_000)
    wait_until(lambda: standing_of(run).step >= 8)
    llama_jax.run("launch", "stop", "run")
    wait_until(lambda: state_of(job) == "FAILED")
    assert standing_of(run).step == standing_of(run).checkpoint


@pytest.mark.parametrize("flags", [("--tasks-per-node", 1), ("--tasks-per-node", 2)])
def test_slurm_itself_accepts_the_script(llama_jax, config, slurm, flags):
    nodes = (
        "--nodes",
        1,
        "--gpus-per-node",
        0,
        "--time",
        "2-00:00:00",
        "--cpus-per-task",
        1,
    )
    done = llama_jax.run("launch", "slurm", llama_jax.recipe(config), *nodes, *flags, "--dry-run")
    script = llama_jax.folder / "job.sh"
    script.write_text(done.stdout)
    command = ["sbatch", "--test-only", script]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0 and "to start at" in tested.stderr


def test_a_second_job_of_a_run_is_refused_while_the_first_is_there(llama_jax, config, slurm):
    # Its folder has a space and a sign that means something in sbatch's patterns of names.
    flags = (*TWO_TASKS, "--program", "echo", "--run-dir", "my run 5%j")
    launch = ("launch", "slurm", llama_jax.recipe(config), *flags)
    setup = ("--setup", "until test -e go; do sleep 0.1; done")
    job = llama_jax.run(*launch, *setup).stderr.split()[-1]
    refused = llama_jax.run(*launch, expect=2).stderr
    assert f"job {job} is " in refused and "`llama-jax launch stop" in refused
    (llama_jax.folder / "go").touch()
    wait_until(lambda: state_of(job) == "COMPLETED")
    run = llama_jax.folder / "my run 5%j"
    log = (run / f"logs/slurm-{job}.log").read_text()
    assert "launch supervise my run 5%j --max-restarts 100 --stop-seconds 600 -- srun" in log
    assert "launch supervise" in llama_jax.run("launch", "logs", run).stdout
    assert int(llama_jax.run(*launch).stderr.split()[-1]) > int(job)


def test_a_job_that_waits_is_stopped_before_it_begins(llama_jax, config, slurm):
    flags = (*TWO_TASKS, "--program", "echo", "--run-dir", "run")
    host = ask("sinfo", "--noheader", "--format=%N")
    subprocess.run(
        ["scontrol", "update", f"NodeName={host}", "State=DRAIN", "Reason=t"], check=True
    )
    done = llama_jax.run("launch", "slurm", llama_jax.recipe(config), *flags, "--json")
    job = json.loads(done.stdout)["job"]
    assert state_of(job) == "PENDING"
    state = LaunchState.load(llama_jax.folder / "run")
    assert (state.job, state.phase, state.platform) == (job, "submitted", "slurm")
    llama_jax.run("launch", "stop", "run")
    wait_until(lambda: state_of(job) == "CANCELLED")


def test_what_slurm_would_refuse_is_refused_before_it_is_submitted(llama_jax, config, slurm):
    flags = (*TWO_TASKS, "--partition", "nowhere", "--run-dir", "run")
    done = llama_jax.run("launch", "slurm", llama_jax.recipe(config), *flags, expect=2)
    assert "Slurm refuses the job" in done.stderr and "partition" in done.stderr
    assert not (llama_jax.folder / "run/launch.json").exists()
