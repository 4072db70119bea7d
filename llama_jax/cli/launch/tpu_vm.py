"""Cloud TPU VMs: queued resources, and a service on every host that keeps the run going."""

import dataclasses
import shlex
import subprocess
from pathlib import Path

from llama_jax import __version__
from llama_jax.cli.launch.cloud import check_region, check_zone
from llama_jax.cli.launch.hosts import CloudOptions, Hosts, find_hosts
from llama_jax.cli.launch.job import Job, parse_job
from llama_jax.cli.launch.preflight import (
    ask_doctor,
    check_absolute,
    check_mesh,
    check_recipe,
    check_tools,
)
from llama_jax.cli.launch.state import LaunchState
from llama_jax.cli.launch.templates import render

USAGE = """usage: llama-jax launch tpu-vm RECIPE --pod POD --zone ZONE --install COMMAND
           --run-dir DIR [--chips POD] [--project P] [--spot] [--dry-run]
           [any flag of llama-jax train]

Asks for TPU slices, waits until they are there, runs --install on every host (the program, and the
mount of a disk that all share), and starts a service on each that trains and starts again by
itself. Run again, it goes on with what is there, and replaces slices that were taken away.

example:
  llama-jax launch tpu-vm llama2_7b --pod v5p:4x4x4 --zone us-east5-a \\
      --install 'pip install llama-jax[tpu] && sudo mount DISK /mnt/run' \\
      --run-dir /mnt/run/llama2-7b --data.directory /mnt/run/tokens --dry-run"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CloudOptions):
    """Flags of `launch tpu-vm`."""

    zone: str
    """Zone of the chips."""
    install: str
    """Shell commands that put llama-jax and the shared disk on a host; run on each."""
    project: str = ""
    """Project; gcloud's own by default."""
    runtime: str = ""
    """Version of the software on the hosts; that of the chip by default."""
    program: str = "llama-jax"
    """How the command is called on a host."""
    reserved: bool = False
    """Ask for chips of a reservation."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch tpu-vm`."""
    job, options = parse_job("tpu-vm", argv, Options, USAGE)
    hosts = find_hosts(options.chips, job.pod)
    name = options.named(job.name)
    check_absolute("--run-dir", str(job.run_dir))
    check_absolute("data.directory", job.config.data.directory)
    check_recipe(job, below="/")
    check_mesh(job, hosts.slices.num_devices, hosts.slices.count)
    script = render_script(job, options, hosts, name)
    if options.dry_run:
        print(script, end="")
        return 0
    check_tools("gcloud")
    check_zone(hosts.tpu_vm[0], _where(options))
    check_region("--run-dir", str(job.run_dir), options.zone)
    check_region("data.directory", job.config.data.directory, options.zone)
    if options.doctor:
        ask_doctor(job, hosts.slices)
    folder = Path("runs") / name
    state = LaunchState(
        platform="tpu-vm",
        name=name,
        run_dir=str(job.run_dir),
        argv=list(job.argv),
        phase="submitted",
        commands=_commands(options, name),
    )
    state.save(folder)
    path = folder / "launch.sh"
    path.write_text(script, encoding="utf-8")
    return subprocess.run(["bash", str(path)], check=False).returncode  # noqa: S603, S607


def render_script(job: Job, options: Options, hosts: Hosts, name: str) -> str:
    """The bash script that asks for the chips and starts the run."""
    accelerator, runtime = hosts.tpu_vm
    several = f"--node-count={hosts.slices.count} --node-prefix={name}"
    tier = "--spot" if options.spot else "--reserved" if options.reserved else ""
    return render(
        "tpu_vm/launch.sh",
        {
            "name": name,
            "slices": hosts.slices.count,
            "pod": f"{hosts.slices.pod.chip.name}:{hosts.slices.pod.topology}",
            "where": shlex.join(_where(options)),
            "create": " ".join(
                [
                    several if hosts.slices.count > 1 else f"--node-id={name}",
                    f"--accelerator-type={accelerator}",
                    f"--runtime-version={options.runtime or runtime}",
                    *([tier] if tier else []),
                ]
            ),
            "install": shlex.quote(options.install),
            "check": shlex.quote(
                f'test "$({options.program} --version)" = "llama-jax {__version__}"'
            ),
            "start": shlex.quote(_service(job, options, name)),
        },
    )


def _service(job: Job, options: Options, name: str) -> str:
    """What starts the run on a host, and has the host start it again."""
    properties = {
        "Restart": "on-failure",
        "RestartSec": "15",
        "RestartPreventExitStatus": "2",
        "StartLimitIntervalSec": "3600",
        "StartLimitBurst": str(options.max_restarts),
        "TimeoutStopSec": str(options.stop_seconds),
    }
    unit = _unit(name)
    # The user who installed it runs it; a unit of an earlier start is replaced.
    return " ".join(
        [
            f"sudo systemctl stop {unit} 2> /dev/null; sudo systemctl reset-failed 2> /dev/null;",
            f'sudo systemd-run --unit={unit} --collect --uid="$(id -u)"',
            *(f"--property={key}={value}" for key, value in properties.items()),
            '--setenv=LLAMA_JAX_CLUSTER=auto --setenv=PATH="$PATH" --setenv=HOME="$HOME"',
            f'"$(command -v {options.program})" train {shlex.join(job.train_argv)}',
        ]
    )


def _unit(name: str) -> str:
    return f"llama-jax-{name}"


def _where(options: Options) -> list[str]:
    project = [f"--project={options.project}"] if options.project else []
    return [f"--zone={options.zone}", *project]


def _commands(options: Options, name: str) -> dict[str, list[str]]:
    """What looks at the hosts, follows them and stops the run; the chips stay."""

    def everywhere(command: str) -> list[str]:
        queue = ["gcloud", "compute", "tpus", "queued-resources", "ssh", name]
        hosts = ["--node=all", "--worker=all", f"--command={command}"]
        return [*queue, *hosts, *_where(options)]

    unit = _unit(name)
    return {
        "status": everywhere(f"hostname; systemctl is-active {unit}"),
        "logs": everywhere(f"hostname; journalctl --unit {unit} --lines 20 --no-pager"),
        "stop": everywhere(f"sudo systemctl stop {unit}"),
    }
