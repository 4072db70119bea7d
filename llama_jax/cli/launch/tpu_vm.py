"""Cloud TPU VMs: queued resources, and a service on every host that keeps the run going."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

from llama_jax import __version__
from llama_jax.cli.launch.buckets import check_buckets
from llama_jax.cli.launch.cloud import check_zone
from llama_jax.cli.launch.hosts import CloudOptions, Hosts, find_hosts
from llama_jax.cli.launch.job import Job, parse_job, print_dry_run, print_state
from llama_jax.cli.launch.preflight import (
    ask_doctor,
    check_mesh,
    check_places,
    check_tools,
)
from llama_jax.cli.launch.state import LaunchState
from llama_jax.cli.launch.templates import render

USAGE = """usage: llama-jax launch tpu-vm RECIPE --pod POD --zone ZONE --install COMMAND
           --run-dir DIR [--disk SHARE] [--chips POD] [--project P] [--spot] [--dry-run]
           [any flag of llama-jax train]

Asks for TPU slices, waits until they are there, runs --install on every host, and starts a service
on each that mounts --disk, trains, and starts again by itself, after a reboot too. DIR and the data
lie in buckets, or on a disk that all hosts share. Run again, it goes on with what is there, and
replaces slices that were taken away.

example:
  llama-jax launch tpu-vm llama2_7b --pod v5p:4x4x4 --zone us-east5-a --disk 10.0.0.2:/share \\
      --install "sudo apt-get install -y nfs-common && pip install 'llama-jax[tpu]'" \\
      --run-dir /mnt/run/llama2-7b --data.directory /mnt/run/tokens --dry-run"""

_DISK = re.compile(r"[\w./:@,=+-]+( [\w./:@,=+-]+)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CloudOptions):
    """Flags of `launch tpu-vm`."""

    zone: str
    """Zone of the chips."""
    install: str
    """Shell commands that put llama-jax on a host; run on each."""
    disk: str = ""
    """What `mount` is told before --mount, as in 10.0.0.2:/share; none for buckets."""
    project: str = ""
    """Project; gcloud's own by default."""
    runtime: str = ""
    """Version of the software on the hosts; that of the chip by default."""
    program: str = "llama-jax"
    """How the command is called on a host."""
    reserved: bool = False
    """Ask for chips of a reservation."""

    def __post_init__(self) -> None:
        CloudOptions.__post_init__(self)
        if self.disk and not _DISK.fullmatch(self.disk):
            raise ValueError(
                f"--disk={self.disk!r} must be words of mount without quotes, as in HOST:/SHARE or "
                "-t lustre HOST@tcp:/NAME."
            )


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch tpu-vm`."""
    job, options = parse_job("tpu-vm", argv, Options, USAGE)
    hosts = find_hosts(options.chips, job.pod)
    name = options.named(job.name)
    check_places(job, below=options.mount if options.disk else "/")
    _check_lines(job)
    check_mesh(job, hosts.slices.num_devices, hosts.slices.count)
    script = render_script(job, options, hosts, name)
    if options.dry_run:
        return print_dry_run(job, script, script=script, commands=_commands(options, name))
    check_tools("gcloud")
    check_zone(hosts.tpu_vm[0], _where(options))
    check_buckets(job, options.zone.rpartition("-")[0])
    if options.doctor:
        ask_doctor(job, options.chips, num_chips=hosts.slices.num_chips)
    folder = Path("runs") / name
    state = LaunchState(
        platform="tpu-vm",
        name=name,
        run_dir=job.places["--run-dir"],
        argv=list(job.argv),
        phase="submitted",
        commands=_commands(options, name),
    )
    state.go_on(folder)
    state.save(folder)
    path = folder / "launch.sh"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(["bash", str(path)], stdout=sys.stderr, check=False)  # noqa: S603, S607
    return print_state(job, folder, 0) if done.returncode == 0 else 1


def _check_lines(job: Job) -> None:
    if torn := [word for word in job.train_argv if "\n" in word]:
        raise ValueError(f"{torn[0]!r} has a line end, which a script for many hosts cannot carry.")


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
                    f"--runtime-version={shlex.quote(options.runtime or runtime)}",
                    *([tier] if tier else []),
                ]
            ),
            "install": shlex.quote(options.install),
            "check": shlex.quote(
                f'test "$({options.program} --version)" = "llama-jax {__version__}"'
            ),
            "stop": shlex.quote(_stop(name)),
            "start": render_start(job, options, name).rstrip("\n"),
        },
    )


def render_start(job: Job, options: Options, name: str) -> str:
    """What a host runs to start its process, and to have systemd start it again."""
    return render(
        "tpu_vm/start.sh",
        {
            "name": name,
            "unit": _unit(name),
            "versions": shlex.quote(options.versions(tpu=True)) if options.same_versions else "",
            "program": options.program,
            "args": shlex.join(job.train_argv),
            "starts": options.max_restarts + 1,
            "mount": options.mount,
            "disk": options.disk,
            "stop_seconds": options.stop_seconds,
        },
    )


def _stop(name: str) -> str:
    # Disabled, for a host that is booted later not to go on; its starts are counted anew.
    unit = _unit(name)
    there = f"if systemctl cat {unit} > /dev/null 2>&1; then sudo systemctl disable --now {unit}"
    return f"{there}; sudo systemctl reset-failed {unit} 2> /dev/null || true; fi"


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
    shown = "--property=ActiveState,NRestarts,ExecMainStatus"
    return {
        "status": everywhere(f"hostname; systemctl show {shown} {unit}"),
        "logs": everywhere(f"hostname; journalctl --unit {unit} --lines 20 --no-pager"),
        "stop": everywhere(_stop(name)),
    }
