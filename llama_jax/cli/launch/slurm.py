"""Slurm: an sbatch script, one process a GPU or a node, that starts again and queues again."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

from llama_jax.cli.launch.job import Job, parse_job
from llama_jax.cli.launch.preflight import check_data, check_mesh, check_run_dir, check_tools
from llama_jax.cli.launch.state import LOGS, LaunchState
from llama_jax.cli.launch.templates import render

USAGE = """usage: llama-jax launch slurm RECIPE --nodes N [--gpus-per-node N] [--tasks-per-node N]
           [--time T] [--partition P] [--account A] [--dry-run] [any flag of llama-jax train]

Submits a job whose tasks are the processes of the run: one a GPU, or one a node with
--tasks-per-node 1. One that dies takes the others down, and all start again from the last
checkpoint within the allocation. Before its time is over, and when it is preempted, the run saves
and the job queues again. The folder of the run lies where all nodes see it.

example: llama-jax launch slurm llama2_7b --nodes 8 --time 2-00:00:00 --data.directory DIR"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
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
    max_restarts: int = 100
    """Crashes after which the run is given up."""
    stop_seconds: int = 600
    """How long before its end the run is asked to save."""
    dry_run: bool = False
    """Print the script, and submit nothing."""

    def __post_init__(self) -> None:
        for name in ("nodes", "stop_seconds"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be positive.")
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
        print(script, end="")
        return 0
    check_tools("sbatch", "scontrol")
    check_run_dir(job.run_dir)
    for line in check_data(job):
        print(f"preflight: {line}", file=sys.stderr)
    (job.run_dir / LOGS).mkdir(exist_ok=True)
    path = job.run_dir / "job.sh"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(  # noqa: S603
        ["sbatch", "--parsable", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr, end="", file=sys.stderr)
        return 1
    number = done.stdout.strip().partition(";")[0]
    state = LaunchState(
        platform="slurm",
        name=job.name,
        run_dir=str(job.run_dir),
        argv=list(job.argv),
        phase="submitted",
        commands=_commands(number, job.run_dir),
    )
    state.save(job.run_dir)
    print(f"launch: {job.name} is job {number}", file=sys.stderr)
    return 0


def render_script(job: Job, options: Options) -> str:
    """The sbatch script."""
    gpus, tasks = options.gpus_per_node, options.tasks
    whole_node = gpus > 1 and tasks == 1
    return render(
        "slurm/job.sh",
        {
            "name": job.name,
            "nodes": options.nodes,
            "tasks_per_node": tasks,
            "gpus_per_node": gpus or "",
            "cpus": f"#SBATCH --cpus-per-task={options.cpus_per_task}"
            if options.cpus_per_task
            else "",
            "time": options.time,
            "partition": options.partition,
            "account": options.account,
            "logs": job.run_dir / LOGS,
            "stop_seconds": options.stop_seconds,
            "setup": options.setup,
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


def _commands(number: str, run_dir: Path) -> dict[str, list[str]]:
    """What looks at the job, follows it and stops it."""
    log = run_dir / LOGS / f"slurm-{number}.log"
    # A job that saved when it was asked to would queue again.
    stop = f"scontrol update JobId={number} Requeue=0 && scancel --signal=TERM {number}"
    return {
        "status": ["squeue", "--job", number, "--long"],
        "logs": ["tail", "--lines", "40", str(log)],
        "stop": ["sh", "-c", stop],
    }
