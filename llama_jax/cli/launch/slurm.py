"""Slurm: an sbatch script, one process a GPU or a node, that starts again and queues again."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

from llama_jax.cli.launch.hosts import LaunchOptions
from llama_jax.cli.launch.job import Job, parse_job, print_dry_run, print_state
from llama_jax.cli.launch.preflight import (
    ask_doctor,
    check_data,
    check_mesh,
    check_run_dir,
    check_tools,
)
from llama_jax.cli.launch.state import LOGS, NAME, LaunchState
from llama_jax.cli.launch.templates import render

USAGE = """usage: llama-jax launch slurm RECIPE --nodes N [--gpus-per-node N] [--tasks-per-node N]
           [--time T] [--partition P] [--account A] [--dry-run] [any flag of llama-jax train]

Submits a job whose tasks are the processes of the run: one a GPU, or one a node with
--tasks-per-node 1. One that dies takes the others down, and all start again from the last
checkpoint within the allocation. Before its time is over, and when it is preempted, the run saves
and the job queues again. The folder of the run lies where all nodes see it.

example: llama-jax launch slurm llama2_7b --nodes 8 --time 2-00:00:00 --data.directory DIR"""

_WORD = re.compile(r"[^\s\"'\\]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(LaunchOptions):
    """Flags of `launch slurm`."""

    nodes: int
    """Nodes of the allocation."""
    gpus_per_node: int = 8
    """GPUs of a node; 0 for processes on the CPU."""
    tasks_per_node: int = 0
    """Processes of a node; one a GPU by default."""
    cpus_per_task: int = 0
    """CPU cores of a process; what the site gives by default."""
    time: str = ""
    """Limit, as sbatch takes it; the partition's by default."""
    partition: str = ""
    """Partition; the site's default."""
    account: str = ""
    """Account to charge."""
    setup: str = ""
    """Shell commands before the run: modules, a virtual environment, a container."""
    program: str = "llama-jax"
    """How the command is called on a node."""

    def __post_init__(self) -> None:
        LaunchOptions.__post_init__(self)
        if self.nodes < 1:
            raise ValueError(f"--nodes={self.nodes} must be positive.")
        for name in ("gpus_per_node", "tasks_per_node", "cpus_per_task"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be zero or more.")
        for name in ("time", "partition", "account"):
            if (text := getattr(self, name)) and not _WORD.fullmatch(text):
                raise ValueError(f"--{name}={text!r} must be one word, as sbatch takes it.")
        if self.gpus_per_node and self.tasks_per_node not in (0, 1, self.gpus_per_node):
            raise ValueError(
                f"--tasks-per-node={self.tasks_per_node} must be 1, for one process a node, or "
                f"--gpus-per-node={self.gpus_per_node}, for one a GPU."
            )

    @property
    def tasks(self) -> int:
        """Processes of a node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch slurm`."""
    job, options = parse_job("slurm", argv, Options, USAGE)
    devices = options.gpus_per_node or options.tasks
    check_mesh(job, options.nodes * devices)
    script = render_script(job, options)
    if options.dry_run:
        return print_dry_run(job, script, script=script)
    check_tools("sbatch", "scontrol", "squeue")
    check_run_dir(job.run_dir)
    _check_queue(job.run_dir)
    for line in check_data(job):
        print(f"preflight: {line}", file=sys.stderr)
    if options.doctor:
        ask_doctor(job, options.chips, num_chips=options.nodes * options.gpus_per_node)
    (job.run_dir / LOGS).mkdir(exist_ok=True)
    path = job.run_dir / "job.sh"
    path.write_text(script, encoding="utf-8")
    number = _submit(path)
    state = LaunchState(
        platform="slurm",
        name=job.name,
        run_dir=str(job.run_dir),
        argv=list(job.argv),
        phase="submitted",
        job=number,
        commands=_commands(number, job.run_dir),
    )
    state.go_on(job.run_dir)
    state.save(job.run_dir)
    released = _ask("scontrol", "release", number)
    if released.returncode:
        print(released.stderr, end="", file=sys.stderr)
        return 1
    print(f"launch: {job.name} is job {number}", file=sys.stderr)
    return print_state(job, job.run_dir, 0)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _submit(path: Path) -> str:
    """Gives the script to Slurm, held; returns the number of the job.

    Raises:
        ValueError: If Slurm refuses it.
    """
    # When it could begin, or why not now: for a while a node may be down that the job waits for.
    print(f"preflight: {_said(_ask('sbatch', '--test-only', str(path)))}", file=sys.stderr)
    # Held until its state is written: a job may begin before sbatch has said its number.
    submitted = _ask("sbatch", "--hold", "--parsable", str(path))
    if submitted.returncode:
        raise ValueError(f"sbatch {path}: Slurm refuses the job ({_said(submitted)}).")
    return submitted.stdout.strip().partition(";")[0]


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return "; ".join(line.removeprefix("sbatch: ") for line in done.stderr.strip().splitlines())


def _check_queue(run_dir: Path) -> None:
    """Refuses a second job for a run whose first one is still there, waiting or running."""
    if not (run_dir / NAME).is_file() or not (number := LaunchState.load(run_dir).job):
        return
    if phase := _ask("squeue", "--job", number, "--noheader", "--format=%T").stdout.strip():
        raise ValueError(
            f"run_dir={run_dir} is launched already: job {number} is {phase}. Wait for it, or "
            f"end it with `llama-jax launch stop {run_dir}`."
        )


def render_script(job: Job, options: Options) -> str:
    """The sbatch script."""
    gpus, tasks = options.gpus_per_node, options.tasks
    whole_node = gpus > 1 and tasks == 1
    return render(
        "slurm/job.sh",
        {
            "name": _in_quotes(job.name),
            "nodes": options.nodes,
            "tasks_per_node": tasks,
            "gpus_per_node": gpus or "",
            "cpus": f"#SBATCH --cpus-per-task={options.cpus_per_task}"
            if options.cpus_per_task
            else "",
            "time": options.time,
            "partition": options.partition,
            "account": options.account,
            "output": _in_quotes(f"{job.run_dir / LOGS}/slurm-".replace("%", "%%") + "%j.log"),
            "stop_seconds": options.stop_seconds,
            "setup": options.setup,
            "versions": shlex.quote(options.versions(tpu=False)) if options.same_versions else "",
            "local_devices": ",".join(map(str, range(gpus))) if whole_node else "",
            "program": options.program,
            "run_dir": shlex.quote(str(job.run_dir)),
            "max_restarts": options.max_restarts,
            "srun": f"srun --kill-on-bad-exit=1 --cpus-per-task={options.cpus_per_task}"
            if options.cpus_per_task
            else "srun --kill-on-bad-exit=1",
            "args": shlex.join(job.train_argv),
        },
    )


def _in_quotes(text: str) -> str:
    """A value in a line of #SBATCH.

    Raises:
        ValueError: If sbatch could not read it back.
    """
    if set(text) & set('"\\\n'):
        raise ValueError(
            f"--run-dir: {text!r} has a quote, a backslash or a line end, which sbatch cannot "
            "read in a script: name another folder."
        )
    return f'"{text}"'


def _commands(number: str, run_dir: Path) -> dict[str, list[str]]:
    """What looks at the job, follows it and stops it."""
    log = run_dir / LOGS / f"slurm-{number}.log"
    # A job that saved when it was asked to would queue again; one that waits hears no signal.
    runs = f"scancel --state=RUNNING --signal=TERM {number}"
    stop = f"scontrol update JobId={number} Requeue=0 && {runs} && scancel --state=PENDING {number}"
    return {
        "status": ["squeue", "--job", number, "--long"],
        "logs": ["tail", "--lines", "40", str(log)],
        "stop": ["sh", "-c", stop],
    }
