"""Ray: one actor a host of an existing cluster, each with its GPUs or TPUs."""

import dataclasses
import importlib.util
import json
import os
import shlex
import sys

from llama_jax.cli import versions
from llama_jax.cli.launch.hosts import LaunchOptions
from llama_jax.cli.launch.job import Job, parse_job, print_dry_run, print_state
from llama_jax.cli.launch.preflight import (
    ask_doctor,
    check_data,
    check_mesh,
    check_places,
    check_run_dir,
)
from llama_jax.cli.launch.ray_driver import logs_of
from llama_jax.cli.launch.state import LOGS, LaunchState
from llama_jax.cli.launch.supervisor import Command, Supervisor

USAGE = """usage: llama-jax launch ray RECIPE --workers N
           (--gpus-per-worker N | --tpus-per-worker N) [--address A] [--dry-run]
           [any flag of llama-jax train]

Runs one process on each of N nodes of a Ray cluster that is there already, and stays until they are
done. One that dies takes the others down, and all start again from the last checkpoint. Run it on
a node of the cluster, or give it to `ray job submit`. The folder of the run lies where all nodes
see it.

example:
  llama-jax launch ray llama2_7b --workers 8 --gpus-per-worker 8 --run-dir /shared/run \\
      --data.directory /shared/tokens"""

_PASSED_ON = ("JAX_", "LIBTPU_", "NCCL_", "XLA_")
_DRIVER = "llama_jax.cli.launch.ray_driver"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(LaunchOptions):
    """Flags of `launch ray`."""

    workers: int
    """Processes, each on a node of its own."""
    gpus_per_worker: int = 0
    """GPUs of each."""
    tpus_per_worker: int = 0
    """TPU chips of each."""
    cpus_per_worker: int = 1
    """CPUs that Ray reserves for each."""
    devices_per_worker: int = 0
    """Simulated CPU devices of each, where there are neither GPUs nor TPUs."""
    same_node: bool = False
    """Let several processes share a node."""
    address: str = "auto"
    """Of the cluster."""

    def __post_init__(self) -> None:
        LaunchOptions.__post_init__(self)
        if self.workers < 1:
            raise ValueError(f"--workers={self.workers} must be positive.")
        kinds = (self.gpus_per_worker, self.tpus_per_worker, self.devices_per_worker)
        if sum(kind > 0 for kind in kinds) != 1:
            raise ValueError(
                f"--gpus-per-worker={self.gpus_per_worker}, --tpus-per-worker="
                f"{self.tpus_per_worker}: give one of them (or --devices-per-worker, simulated)."
            )


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch ray`."""
    job, options = parse_job("ray", argv, Options, USAGE)
    devices = options.gpus_per_worker or options.tpus_per_worker or options.devices_per_worker
    check_mesh(job, options.workers * devices)
    check_places(job)
    if options.dry_run:
        told = spec(job, options)
        text = shlex.quote(json.dumps(told, indent=2))
        return print_dry_run(job, f"python -m {_DRIVER} \\\n{text}", module=_DRIVER, spec=told)
    if importlib.util.find_spec("ray") is None:
        raise ValueError("PLATFORM='ray' needs the package ray: `pip install 'llama-jax[ray]'`.")
    check_run_dir(job.run_dir)
    for line in check_data(job):
        print(f"preflight: {line}", file=sys.stderr)
    if options.doctor:
        ask_doctor(job, options.chips, num_chips=options.workers * devices)
    told = spec(job, options)
    state = LaunchState(
        platform="ray",
        name=job.name,
        run_dir=str(job.run_dir),
        argv=list(job.argv),
        logs=logs_of(str(job.run_dir / LOGS), options.workers),
    )
    supervisor = Supervisor(
        state,
        job.run_dir,
        lambda: [Command(argv=[sys.executable, "-m", _DRIVER, json.dumps(told)])],
        max_restarts=options.max_restarts,
        stop_seconds=options.stop_seconds,
    )
    return print_state(job, job.run_dir, supervisor.run())


def spec(job: Job, options: Options) -> dict[str, object]:
    """What the driver is told."""
    resources = {"TPU": options.tpus_per_worker} if options.tpus_per_worker else {}
    # Ray's processes have the environment of the cluster, not of who launches.
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    if options.same_versions:
        environment[versions.NAME] = options.versions(tpu=options.tpus_per_worker > 0)
    if options.devices_per_worker:
        environment |= {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(options.devices_per_worker),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
    return {
        "address": options.address,
        "workers": options.workers,
        "bundle": {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker, **resources},
        "strategy": "PACK" if options.same_node else "STRICT_SPREAD",
        "environment": environment,
        "logs": str(job.run_dir / LOGS),
        "stop_seconds": options.stop_seconds,
        "argv": list(job.train_argv),
    }
