"""Keeps one command going that starts all processes of a run: `srun` in a Slurm job."""

import dataclasses
import sys
from pathlib import Path

from llama_jax.cli.launch.restarts import check_limits
from llama_jax.cli.launch.state import NAME, LaunchState
from llama_jax.cli.launch.supervisor import Command, Supervisor

USAGE = """usage: llama-jax launch supervise RUN_DIR [--max-restarts N] [--stop-seconds S]
           -- COMMAND ...

Runs COMMAND, which starts all processes of a run, and starts it again from the last checkpoint when
it fails, with growing waits and a limit; three failures at the same step end it. Exit code 75, of a
run that saved because it was asked to stop, ends it too: the platform decides what follows.

example: llama-jax launch supervise /shared/run -- srun llama-jax train llama2_7b"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Flags of `launch supervise`."""

    max_restarts: int = 100
    """Failures after which the run is given up."""
    stop_seconds: float = 600.0
    """How long the command may take to save when it is asked to stop."""

    def __post_init__(self) -> None:
        check_limits(self.max_restarts, self.stop_seconds)


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch supervise`."""
    if not argv or argv[0].startswith("-") or "--" not in argv:
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    cut = argv.index("--")
    flags, command = argv[1:cut], argv[cut + 1 :]
    options = tyro.cli(_Options, prog="llama-jax launch supervise", description=USAGE, args=flags)
    if not command:
        raise ValueError("COMMAND is missing after --; give what starts the processes.")
    return supervise(
        Path(argv[0]),
        Command(argv=command),
        max_restarts=options.max_restarts,
        stop_seconds=options.stop_seconds,
    )


def supervise(run_dir: Path, command: Command, *, max_restarts: int, stop_seconds: float) -> int:
    """Runs the command until it is done, refused, preempted or given up."""
    if (run_dir / NAME).is_file():
        state = LaunchState.load(run_dir)  # of who submitted the job that this is
    else:
        state = LaunchState(platform="supervise", name=run_dir.name, run_dir=str(run_dir), argv=[])
    return Supervisor(
        state,
        run_dir,
        lambda: [command],
        max_restarts=max_restarts,
        stop_seconds=stop_seconds,
        restart_preempted=False,
    ).run()
