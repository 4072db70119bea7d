"""Several real processes on this machine, with simulated devices and the real runtime."""

import contextlib
import dataclasses
import shlex
import sys

from llama_jax.cli.launch.job import Job, parse_job, print_dry_run, print_state
from llama_jax.cli.launch.preflight import check_here
from llama_jax.cli.launch.restarts import check_limits
from llama_jax.cli.launch.state import LOGS, LaunchState
from llama_jax.cli.launch.supervisor import Command, Supervisor
from llama_jax.train.processes import hold_port

USAGE = """usage: llama-jax launch local RECIPE [--processes N] [--devices-per-process M]
           [--max-restarts N] [--stop-seconds S] [--dry-run] [any flag of llama-jax train]

Runs N processes on this machine, each with M simulated CPU devices, joined as on a pod: what
works here works there but for the speed. One that dies takes the others down, and all start again
from the last checkpoint. Ctrl-C and SIGTERM save, and exit with 75; start again to go on.

example:
  llama-jax launch local demo --processes 2 --devices-per-process 2 --mesh.fsdp 4
  llama-jax launch status demo"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of `launch local`."""

    processes: int = 2
    """Processes, as many hosts of a pod."""
    devices_per_process: int = 1
    """Simulated CPU devices of each."""
    max_restarts: int = 100
    """Crashes after which the run is given up; three in a row at the same step are enough."""
    stop_seconds: float = 600.0
    """How long the processes may take to save when they are asked to stop."""
    dry_run: bool = False
    """Print what would run, and check nothing."""

    def __post_init__(self) -> None:
        check_limits(self.max_restarts, self.stop_seconds)
        for name in ("processes", "devices_per_process"):
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be positive.")


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch local`."""
    job, options = parse_job("local", argv, Options, USAGE)
    if options.dry_run:
        would = [
            {"argv": command.argv, "environment": command.environment}
            for command in commands(job, options, "127.0.0.1:PORT")
        ]
        return print_dry_run(job, _script(job, options), processes=would)
    check_here(job, num_devices=options.processes * options.devices_per_process)
    state = LaunchState(
        platform=job.platform, name=job.name, run_dir=str(job.run_dir), argv=list(job.argv)
    )
    with contextlib.ExitStack() as ports:

        def start() -> list[Command]:
            # Another one each time: what is left of a killed process may still listen at the last.
            port = ports.enter_context(hold_port()).getsockname()[1]
            return commands(job, options, f"127.0.0.1:{port}")

        supervisor = Supervisor(
            state,
            job.run_dir,
            start,
            max_restarts=options.max_restarts,
            stop_seconds=options.stop_seconds,
        )
        return print_state(job, job.run_dir, supervisor.run())


def commands(job: Job, options: Options, coordinator: str) -> list[Command]:
    """The processes of one attempt."""
    return [
        Command(
            argv=[sys.executable, "-m", "llama_jax.cli.main", "train", *job.train_argv],
            environment={
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(options.devices_per_process),
                "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
                "LLAMA_JAX_COORDINATOR": coordinator,
                "LLAMA_JAX_NUM_PROCESSES": str(options.processes),
                "LLAMA_JAX_PROCESS_ID": str(index),
            },
        )
        for index in range(options.processes)
    ]


def _script(job: Job, options: Options) -> str:
    """The processes as shell commands."""
    lines = []
    for index, command in enumerate(commands(job, options, "127.0.0.1:PORT")):
        environment = [f"{name}={value}" for name, value in command.environment.items()]
        log = shlex.quote(str(job.run_dir / LOGS / f"process-{index}.log"))
        argv = ["llama-jax", *command.argv[3:]]
        lines.append(f"{' '.join(environment)} \\\n  {shlex.join(argv)} >> {log} 2>&1 &")
    return "\n".join([*lines, "wait  # PORT is a free one"])
