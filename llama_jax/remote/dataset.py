"""A dataset in a bucket: small files come at once, a shard when it is first read.

    local_dataset("gs://tokens/mix")     # a folder of this machine; a local one is given back
    fetch_shard(path, num_bytes)         # there, if it was left in the bucket

Samples come from all over a dataset, so sooner or later each shard that training sees is here.
"""

import os
from pathlib import Path

from llama_jax.atomic import write_atomically
from llama_jax.cache import cache_folder
from llama_jax.remote.objects import Objects, Url, is_remote

_NOTE = "bucket_url"
_SHARD = ".array_record-"
_MANIFEST = "source.json"


def local_dataset(directory: str) -> str:
    """The folder in which a dataset of a bucket is kept here, below `XDG_CACHE_HOME` or `~/.cache`.

    Args:
        directory: Of the dataset; given back as it is unless it is in a bucket.

    Raises:
        StorageError: If the bucket cannot be read.
    """
    if not is_remote(directory):
        return directory
    url = Url(directory)
    objects = Objects(url)
    folder = cache_folder("data") / url.key
    names = [name for name in objects.names() if _SHARD not in name]
    for name, content in zip(names, objects.read_all(names), strict=True):
        path = folder / name
        if content is None or (path.is_file() and path.read_bytes() == content):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(f"/{_MANIFEST}"):  # the source was built anew
            for shard in path.parent.glob(f"*{_SHARD}*"):
                shard.unlink(missing_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_bytes(content)
        partial.replace(path)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _NOTE, f"{url}\n")
    return str(folder)


def is_left_in_bucket(path: Path) -> bool:
    """Whether a shard that is not here can be fetched."""
    return not path.exists() and (path.parent.parent / _NOTE).is_file()


def fetch_shard(path: Path, num_bytes: int) -> None:
    """Fetches a shard, if it was left in a bucket.

    Args:
        path: Where it belongs, in the folder of its source.
        num_bytes: Its size, as the manifest says.

    Raises:
        StorageError: If it cannot be read, or has another size.
    """
    if is_left_in_bucket(path):
        url = Url((path.parent.parent / _NOTE).read_text(encoding="utf-8").strip())
        Objects(url / path.parent.name).fetch(path.name, path, num_bytes)
