"""What a cloud's own tools tell before anything starts: permissions, offers, regions, versions."""

import json
import re
import shutil
import subprocess
import sys

from llama_jax import __version__
from llama_jax.remote.objects import Url

_TIMEOUT_SECONDS = 120


def check_cluster(namespace: str, *, claim: str, queue: str, resource: str, num_chips: int) -> None:
    """Asks Kubernetes for the right to make a JobSet, and for what it names.

    Args:
        namespace: Of the JobSet.
        claim: Of the disk; empty where there is none.
        queue: Kueue's local queue; empty where there is none.
        resource: Kubernetes' name of the chips.
        num_chips: Of all slices.

    Raises:
        ValueError: Naming the flag that the cluster does not know, or what is not allowed.
    """
    where = ["--namespace", namespace]
    allowed = _ask("kubectl", "auth", "can-i", "create", "jobsets.jobset.x-k8s.io", *where)
    if allowed.stdout.strip() != "yes":
        raise ValueError(
            f"--namespace={namespace}: this user may not make a JobSet there "
            f"({_said(allowed)}). Install JobSet, or ask for the right to create jobsets."
        )
    wanted = {"claim": ("persistentvolumeclaim", claim), "queue": ("localqueue", queue)}
    for flag, (kind, name) in wanted.items():
        if name and (found := _ask("kubectl", "get", kind, name, *where)).returncode:
            raise ValueError(f"--{flag}={name}: the cluster has none ({_said(found)}).")
    if queue:
        to = "--output=jsonpath={.spec.clusterQueue}"
        name = _ask("kubectl", "get", "localqueue", queue, *where, to).stdout.strip()
        _check_quota(queue, name, resource, num_chips)


def _check_quota(queue: str, cluster_queue: str, resource: str, num_chips: int) -> None:
    """Refuses a run that Kueue would never admit; says what it has where it might."""
    found = _ask("kubectl", "get", "clusterqueue", cluster_queue, "--output=json")
    if found.returncode and "not found" in found.stderr.lower():
        raise ValueError(
            f"--queue={queue}: its cluster queue {cluster_queue} is not there ({_said(found)})."
        )
    try:
        spec = json.loads(found.stdout)["spec"]
    except (ValueError, KeyError):  # such objects are of the whole cluster: not all may see them
        print(f"preflight: the quota of --queue={queue} is not known here", file=sys.stderr)
        return
    flavors = [flavor for group in spec.get("resourceGroups", []) for flavor in group["flavors"]]
    quotas = [r["nominalQuota"] for f in flavors for r in f["resources"] if r["name"] == resource]
    # Slices of one run are all of one flavor.
    largest = max((int(quota) for quota in quotas if str(quota).isdecimal()), default=0)
    lends = spec.get("cohort") or spec.get("cohortName")
    if largest < num_chips and not lends:
        raise ValueError(
            f"--queue={queue}: its cluster queue {cluster_queue} has a quota of {largest} "
            f"{resource}, and this run asks for {num_chips}: Kueue would never admit it."
        )
    print(
        f"preflight: {cluster_queue} has a quota of {largest} {resource}"
        + (f", and may borrow in {lends}" if lends else ""),
        file=sys.stderr,
    )


def check_image(image: str) -> None:
    """Says where an image is of another version than the one that read the flags."""
    tag = re.search(r":v?(\d+\.\d+\.\d+)$", image)
    if tag and tag[1] != __version__:
        raise ValueError(
            f"--image={image} is of version {tag[1]}, and the flags were read by {__version__}, "
            "which may mean something else by them: launch with the version of the image."
        )
    if not tag:
        print(f"preflight: the version in --image={image} is not known", file=sys.stderr)


def check_zone(accelerator: str, where: list[str]) -> None:
    """Asks Google Cloud whether this account can have such chips in a zone.

    How many it may have, Google Cloud tells only when they are asked for.

    Args:
        accelerator: Google Cloud's name of them.
        where: Flags of the zone and the project.

    Raises:
        ValueError: If it cannot.
    """
    command = ["compute", "tpus", "accelerator-types", "describe", accelerator]
    found = _ask("gcloud", *command, *where)
    if found.returncode:
        raise ValueError(
            f"{' '.join(where)}: no {accelerator} for this account there ({_said(found)}). "
            "`gcloud compute tpus accelerator-types list --zone ZONE` shows what there is."
        )


def region_of_bucket(url: Url) -> str:
    """Where Google Cloud keeps a bucket; empty where gcloud or the right to know it is missing."""
    if not str(url).startswith("gs://") or shutil.which("gcloud") is None:
        return ""
    bucket = f"gs://{url.parts[1]}"
    found = _ask("gcloud", "storage", "buckets", "describe", bucket, "--format=value(location)")
    return "" if found.returncode else found.stdout.strip().lower()


def region_of_cluster() -> str:
    """The region of a Kubernetes cluster's nodes; empty where it has none, or does not say."""
    label = r"{.items[0].metadata.labels.topology\.kubernetes\.io/region}"
    return _ask("kubectl", "get", "nodes", "--output", f"jsonpath={label}").stdout.strip()


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 (the cloud's own tool)
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {_TIMEOUT_SECONDS} s")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
