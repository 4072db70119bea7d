"""Kubernetes: a JobSet for TPU slices or GPU nodes, queued by Kueue where there is a queue."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from llama_jax.cli.launch.buckets import check_buckets
from llama_jax.cli.launch.cloud import check_cluster, check_image, region_of_cluster
from llama_jax.cli.launch.hosts import CloudOptions, Hosts, find_hosts
from llama_jax.cli.launch.job import Job, parse_job, print_dry_run, print_state
from llama_jax.cli.launch.preflight import (
    ask_doctor,
    check_mesh,
    check_places,
    check_tools,
    on_disk,
)
from llama_jax.cli.launch.state import LaunchState
from llama_jax.cli.launch.templates import render

USAGE = """usage: llama-jax launch gke RECIPE --pod POD --image IMAGE --run-dir DIR [--claim PVC]
           [--chips POD] [--queue QUEUE] [--spot] [--dry-run] [any flag of llama-jax train]

Applies a JobSet: a job a slice, a pod a host. Where one pod fails, all start again from the last
checkpoint; one that was preempted after saving costs no restart. DIR and the data lie in buckets,
or below the mount of the claim, which all hosts share. A JobSet of the same name is stopped first,
and saves.

example:
  llama-jax launch gke llama2_70b --pod 'v5p:8x8x8*2' --image IMAGE --claim shared \\
      --run-dir /mnt/run/llama2-70b --data.directory /mnt/run/tokens --dry-run"""

_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CloudOptions):
    """Flags of `launch gke`."""

    image: str
    """Container image with llama-jax in it."""
    claim: str = ""
    """Persistent volume claim that all hosts can write (Filestore, Lustre); none for buckets."""
    namespace: str = "default"
    """Kubernetes namespace."""
    queue: str = ""
    """Kueue's local queue; empty where there is no Kueue."""
    priority: str = ""
    """Priority class."""
    service_account: str = ""
    """Kubernetes service account, where the bucket needs one."""

    def __post_init__(self) -> None:
        CloudOptions.__post_init__(self)
        for field in ("claim", "namespace", "queue", "priority", "service_account"):
            if (text := getattr(self, field)) and not _OBJECT.fullmatch(text):
                raise ValueError(
                    f"--{field.replace('_', '-')}={text!r} is no name of Kubernetes: up to 253 of "
                    "a-z, 0-9, '-' and '.', with a letter or digit at both ends."
                )
        if not self.image or set(self.image) & set(" \t\n"):
            raise ValueError(f"--image={self.image!r} must be one word, as in REGISTRY/NAME:TAG.")


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch gke`."""
    job, options = parse_job("gke", argv, Options, USAGE)
    hosts = find_hosts(options.chips, job.pod)
    name = options.named(job.name)
    check_places(job, below=options.mount)
    if not options.claim and (fields := on_disk(job)):
        raise ValueError(
            f"--claim='' names no disk for {', '.join(fields)} below {options.mount}: give a claim "
            "that all hosts can write, or buckets (gs://BUCKET/RUN)."
        )
    check_mesh(job, hosts.slices.num_devices, hosts.slices.count)
    check_image(options.image)
    folder = Path("runs") / name
    manifests = {
        folder / "jobset.yaml": render_manifest(job, options, hosts, name),
        # Under a name that is not there, for Kubernetes to say what it thinks of it.
        folder / "check.yaml": render_manifest(job, options, hosts, f"{name[:30]}-check"),
    }
    state = LaunchState(
        platform="gke",
        name=name,
        run_dir=job.places["--run-dir"],
        argv=list(job.argv),
        phase="submitted",
        commands=_commands(options, name),
    )
    steps = _steps(options, name, *manifests)
    if options.dry_run:
        manifest, told = manifests[folder / "jobset.yaml"], {**steps, **state.commands}
        lines = [f"# {verb}: {shlex.join(command)}" for verb, command in told.items()]
        return print_dry_run(job, manifest + "\n".join(lines), manifest=manifest, commands=told)
    check_tools("kubectl")
    check_cluster(
        options.namespace,
        claim=options.claim,
        queue=options.queue,
        resource="google.com/tpu" if hosts.is_tpu else "nvidia.com/gpu",
        num_chips=hosts.slices.num_chips,
    )
    check_buckets(job, region_of_cluster())
    if options.doctor:
        ask_doctor(job, options.chips, num_chips=hosts.slices.num_chips)
    state.go_on(folder)
    state.save(folder)
    for path, text in manifests.items():
        path.write_text(text, encoding="utf-8")
    for command in steps.values():
        # The tool's own words are for people.
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode  # noqa: S603
        if code:
            print(f"launch: failed: {shlex.join(command)}", file=sys.stderr)
            return 1
    print(f"launch: {name}: `llama-jax launch status {name}` shows it", file=sys.stderr)
    return print_state(job, folder, 0)


def _steps(options: Options, name: str, jobset: Path, check: Path) -> dict[str, list[str]]:
    """What starts the JobSet, in order."""
    where = ["--namespace", options.namespace]
    return {
        "check": ["kubectl", "create", "--dry-run=server", "--filename", str(check)],
        # A JobSet cannot be changed. Its pods have saved and are gone before the new ones come.
        "replace": [*_delete(name), "--ignore-not-found", *where],
        "apply": ["kubectl", "apply", "--filename", str(jobset)],
    }


def _delete(name: str) -> list[str]:
    return ["kubectl", "delete", "jobset", name, "--cascade=foreground", "--wait"]


def render_manifest(job: Job, options: Options, hosts: Hosts, name: str) -> str:
    """The JobSet as YAML."""
    common = {
        "name": name,
        "namespace": _scalar(options.namespace),
        "queue": _scalar(options.queue),
        "max_restarts": options.max_restarts,
        "hosts": hosts.per_slice,
        "chips_per_host": hosts.chips_per_host,
        "stop_seconds": options.stop_seconds,
        "service_account": _scalar(options.service_account),
        "priority": _scalar(options.priority),
        "accelerator": hosts.gke_accelerator,
        "spot": "true" if options.spot else "",
        "image": _scalar(options.image),
        "versions": _scalar(options.versions(tpu=hosts.is_tpu)),
        "args": json.dumps(list(job.train_argv), ensure_ascii=False),
        "mount": options.mount if options.claim else "",
        "claim": _scalar(options.claim),
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


def _scalar(text: str) -> str:
    """A string for YAML, whatever it looks like; empty, its line is left out."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _commands(options: Options, name: str) -> dict[str, list[str]]:
    """What looks at the JobSet, follows it and stops it."""
    where = ["--namespace", options.namespace]
    label = f"jobset.sigs.k8s.io/jobset-name={name}"
    logs = ["logs", "--selector", label, "--prefix", "--tail", "20", "--max-log-requests", "1000"]
    return {
        "status": ["kubectl", "get", "jobset,job,pod", "--selector", label, *where],
        "logs": ["kubectl", *logs, *where],
        "stop": [*_delete(name), *where],
    }
