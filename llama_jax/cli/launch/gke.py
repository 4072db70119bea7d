"""Kubernetes: a JobSet for TPU slices or GPU nodes, queued by Kueue where there is a queue."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from llama_jax.cli.launch.cloud import check_cluster, check_image
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

USAGE = """usage: llama-jax launch gke RECIPE --pod POD --image IMAGE --claim PVC --run-dir DIR
           [--chips POD] [--queue QUEUE] [--spot] [--dry-run] [any flag of llama-jax train]

Applies a JobSet: a job a slice, a pod a host. Where one pod fails, all start again from the last
checkpoint; one that was preempted after saving costs no restart. DIR and the data lie below the
mount of the claim, which all hosts share. A JobSet of the same name is stopped first, and saves.

example:
  llama-jax launch gke llama2_70b --pod 'v5p:8x8x8*2' --image IMAGE --claim shared \\
      --run-dir /mnt/run/llama2-70b --data.directory /mnt/run/tokens --dry-run"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CloudOptions):
    """Flags of `launch gke`."""

    image: str
    """Container image with llama-jax in it."""
    claim: str
    """Persistent volume claim that all hosts can write: Filestore, Lustre, a mounted bucket."""
    namespace: str = "default"
    """Kubernetes namespace."""
    queue: str = ""
    """Kueue's local queue; empty where there is no Kueue."""
    priority: str = ""
    """Priority class."""
    service_account: str = ""
    """Kubernetes service account, where the bucket needs one."""
    mount: str = "/mnt/run"
    """Where the claim is mounted."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch gke`."""
    job, options = parse_job("gke", argv, Options, USAGE)
    hosts = find_hosts(options.chips, job.pod)
    name = options.named(job.name)
    check_absolute("--run-dir", str(job.run_dir), below=options.mount)
    check_absolute("data.directory", job.config.data.directory, below=options.mount)
    check_recipe(job, below=options.mount)
    check_mesh(job, hosts.slices.num_devices, hosts.slices.count)
    check_image(options.image)
    manifest = render_manifest(job, options, hosts, name)
    folder = Path("runs") / name
    path = folder / "jobset.yaml"
    state = LaunchState(
        platform="gke",
        name=name,
        run_dir=str(job.run_dir),
        argv=list(job.argv),
        phase="submitted",
        commands=_commands(options, name),
    )
    apply = ["kubectl", "apply", "--filename", str(path)]
    if options.dry_run:
        print(manifest, end="")
        for verb, command in {"apply": apply, **state.commands}.items():
            print(f"# {verb}: {' '.join(command)}")
        return 0
    check_tools("kubectl")
    check_cluster(options.namespace, claim=options.claim, queue=options.queue)
    if options.doctor and hosts.is_tpu:
        ask_doctor(job, hosts.slices)
    state.save(folder)
    path.write_text(manifest, encoding="utf-8")
    # A finished or stopped one of the same name has to go first: a JobSet cannot be changed.
    gone = ["kubectl", "delete", "jobset", name, "--namespace", options.namespace]
    subprocess.run([*gone, "--ignore-not-found"], check=False)  # noqa: S603
    code = subprocess.run(apply, check=False).returncode  # noqa: S603
    print(f"launch: {name}: `llama-jax launch status {name}` shows it", file=sys.stderr)
    return code


def render_manifest(job: Job, options: Options, hosts: Hosts, name: str) -> str:
    """The JobSet as YAML."""
    common = {
        "name": name,
        "namespace": options.namespace,
        "queue": options.queue,
        "max_restarts": options.max_restarts,
        "hosts": hosts.per_slice,
        "chips_per_host": hosts.chips_per_host,
        "stop_seconds": options.stop_seconds,
        "service_account": options.service_account,
        "priority": options.priority,
        "accelerator": hosts.gke_accelerator,
        "spot": "true" if options.spot else "",
        "image": options.image,
        "args": json.dumps(list(job.train_argv)),
        "mount": options.mount,
        "claim": options.claim,
    }
    if not hosts.is_tpu:
        return render("gke/gpu.yaml", common | {"chip": hosts.slices.pod.chip.name.upper()})
    pod = hosts.slices.pod
    tpu = {
        "slices": hosts.slices.count,
        "pod": f"{pod.chip.name}:{pod.topology}",
        "topology": pod.topology or "1x1",
    }
    return render("gke/tpu.yaml", common | tpu)


def _commands(options: Options, name: str) -> dict[str, list[str]]:
    """What looks at the JobSet, follows it and stops it."""
    where = ["--namespace", options.namespace]
    label = f"jobset.sigs.k8s.io/jobset-name={name}"
    logs = ["logs", "--selector", label, "--prefix", "--tail", "20", "--max-log-requests", "1000"]
    return {
        "status": ["kubectl", "get", "jobset,job,pod", "--selector", label, *where],
        "logs": ["kubectl", *logs, *where],
        "stop": ["kubectl", "delete", "jobset", name, *where],
    }
