"""What of a run lies in buckets: whether it can be reached, is whole, and is near the chips."""

import dataclasses
import json
import os
import socket
import sys
import time
from pathlib import Path

from llama_jax.cli.launch.cloud import region_of_bucket
from llama_jax.cli.launch.job import Job
from llama_jax.cli.launch.state import Standing, standing_of
from llama_jax.data.shards import MANIFEST, split_from_json
from llama_jax.observe.goodput import NAME as GOODPUT
from llama_jax.observe.goodput import read_starts
from llama_jax.remote.mirror import CHECKPOINTS
from llama_jax.remote.objects import Objects, StorageError, Url, is_remote
from llama_jax.remote.run_files import read_only_copy

# Google's names of locations that are many regions.
_MULTI_REGIONS = {"us": "us-", "eu": "europe-", "asia": "asia-"}


def check_buckets(job: Job, region: str = "") -> None:
    """Refuses buckets that cannot be read and written with the credentials of this machine.

    Data are looked at too, as on a disk.

    Args:
        job: To launch.
        region: Of the chips, where it is known: a bucket elsewhere is slow, and costs money.

    Raises:
        ValueError: If one cannot be, or lies elsewhere.
    """
    if is_remote(job.run_dir):
        check_writable(Url(job.run_dir))
    for field, place in job.places.items():
        if is_remote(place):
            check_region(field, Url(place), region)
    if is_remote(job.places.get("data.directory", "")):
        for line in check_data_of(job):
            print(f"preflight: {line}", file=sys.stderr)


def check_writable(run_dir: Url) -> None:
    """Writes an object below a run's place, reads it back and deletes it.

    Raises:
        ValueError: If one of them fails.
    """
    name, content = f"preflight-{socket.gethostname()}-{os.getpid()}", os.urandom(8)
    try:
        objects = Objects(run_dir)
        objects.write(name, content)
        if objects.read(name) != content:
            raise StorageError("what was written is not what is read")
        objects.delete([name])
    except StorageError as error:
        raise ValueError(
            f"--run-dir={run_dir} cannot be written, read back and deleted ({error}): name another "
            "place, or give this account the right to."
        ) from error
    print(f"preflight: {run_dir} can be written, read and deleted from here", file=sys.stderr)


def check_region(field: str, url: Url, region: str) -> None:
    """Refuses a bucket of another region than the chips'; says where that is not known.

    Raises:
        ValueError: If it is in another one.
    """
    location = region_of_bucket(url)
    if not location or not region:
        print(f"preflight: {field}={url}: in which region is not known here", file=sys.stderr)
        return
    if location == region or region.startswith(_MULTI_REGIONS.get(location, "?")):
        return
    if "-" not in location and location not in _MULTI_REGIONS:  # two regions, "nam4" say
        print(
            f"preflight: {field}={url} lies in {location}, the chips in {region}", file=sys.stderr
        )
        return
    raise ValueError(
        f"{field}={url}: the bucket lies in {location}, the chips in {region}: copy it to a "
        "bucket there, or take chips elsewhere."
    )


def look_into(run_dir: Url) -> tuple[Path, Standing]:
    """A copy of the small files of a run, and how far it is.

    Raises:
        StorageError: If the bucket cannot be read.
    """
    folder = read_only_copy(Path(run_dir))
    names = Objects(run_dir / CHECKPOINTS).names()
    complete = [name.partition("/")[0] for name in names if name.endswith("/manifest.json")]
    newest = max((int(step) for step in complete if step.isdecimal()), default=None)
    starts = read_starts(folder / GOODPUT)
    silent = max(0.0, time.time() - starts[-1].last_time) if starts else None
    standing = dataclasses.replace(standing_of(folder), checkpoint=newest, seconds_silent=silent)
    return folder, standing


def check_data_of(job: Job) -> list[str]:
    """Checks that a bucket has all shards that its manifests name; says how often they are read.

    Indices, which may be large, stay there.

    Raises:
        ValueError: If it does not, or cannot be read.
    """
    config, url = job.config, Url(job.config.data.directory)
    try:
        objects = Objects(url)
        names = objects.names()
        manifests = [name for name in names if name.endswith(f"/{MANIFEST}")]
        contents = dict(zip(manifests, objects.read_all(manifests), strict=True))
    except StorageError as error:
        raise ValueError(f"data.directory={url} cannot be read ({error}).") from error
    if not manifests:
        raise ValueError(
            f"data.directory={url} holds no source of token shards; write it with "
            f"`llama-jax data build RECIPE --out {url} --work DIR`."
        )
    from llama_jax.data.dataset import check_mixture, check_vocabulary

    there, tokens = set(names), 0
    check_mixture(config.data.mixture, {name.rpartition("/")[0] for name in manifests}, str(url))
    for name, content in contents.items():
        manifest = json.loads(content or b"{}")
        check_vocabulary(config.model.vocab_size, manifest["vocab_size"], f"tokenizer in {url}")
        splits = {key: split_from_json(split) for key, split in manifest["splits"].items()}
        folder = name.rpartition("/")[0]
        shards = {f"{folder}/{shard.file}" for split in splits.values() for shard in split.shards}
        if missing := sorted(shards - there):
            raise ValueError(
                f"data.directory={url}: shard {missing[0]} is missing; copy it again, or build the "
                "data anew."
            )
        tokens += splits["train"].num_tokens
    needed = config.tokens_before(config.train.num_steps)
    share = f"{needed / tokens:.2f} times what they hold"
    return [f"data: all shards are there; {needed:,} tokens of training are {share}"]
