"""The steps by which a source's duplicates are found and removed, bucket by bucket."""

from collections.abc import Callable
from pathlib import Path

from llama_jax.config import Deduplication, MinHash

from .engine import Done, Function, Task
from .stages import deduplicate as stage

# A step's name and its tasks by source -> the tasks done.
Run = Callable[[str, dict[str, list[Task]]], dict[str, list[Done]]]
_MAX_PARTS = 64


def remove_duplicates(
    name: str, wanted: Deduplication, buckets: list[Done], size_bytes: int, run: Run
) -> list[Done]:
    """A source's buckets without its duplicates.

    Args:
        name: Of the source.
        wanted: What counts as one.
        buckets: Tasks that wrote documents, in order of hashes.
        size_bytes: Of their text.
        run: Runs the tasks of a step.
    """
    folders = tuple(bucket.folder for bucket in buckets)

    def step(label: str, tasks: list[tuple[Function, object, tuple[Path, ...]]]) -> list[Done]:
        made = [
            Task(
                name=f"{label}/{name}/{number:05d}",
                function=function,
                config=config,
                inputs=inputs,
                size_bytes=size_bytes // len(tasks),
            )
            for number, (function, config, inputs) in enumerate(tasks)
        ]
        return run(label, {name: made})[name]

    if isinstance(wanted, MinHash):
        of_bucket = step("sign", [(stage.sign, wanted, (folder,)) for folder in folders])
        signed = tuple(done.folder for done in of_bucket)
        bands = [stage.Match(minhash=wanted, band=band) for band in range(wanted.bands)]
        parts = step("match", [(stage.match, band, signed) for band in bands])
        join, before = stage.cluster, signed
    else:
        of_bucket = step("hash", [(stage.hash_paragraphs, wanted, (folder,)) for folder in folders])
        signed = tuple(done.folder for done in of_bucket)
        num_parts = min(len(folders), _MAX_PARTS)
        ranges = [stage.Part(part=part, num_parts=num_parts) for part in range(num_parts)]
        parts = step("repeats", [(stage.find_repeats, part, signed) for part in ranges])
        join, before = stage.sort_repeats, ()
    found = tuple(done.folder for done in parts)
    (joined,) = step("join", [(join, stage.Join(num_buckets=len(folders)), (*before, *found))])
    return step(
        "deduplicate",
        [
            (stage.remove, stage.Remove(bucket=bucket, rule=wanted), (folder, joined.folder))
            for bucket, folder in enumerate(folders)
        ],
    )
