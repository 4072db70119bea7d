"""Time and memory of the one task that joins near duplicates to groups, for millions of documents.

Command: python benchmarks/cluster.py [--documents 3000000] [--memory-mib 1024]

Documents are numbers in groups of a fixed size, spread over all buckets by lot. The pairs are those
that `match` would write for one band: each document with the longest of its group and the eight
before it. Groups, and what is removed, are checked. Time is CPU time; the peak is that of this
process, and the largest size that DuckDB's folder had.
"""

import dataclasses
import re
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from data_pipelines.stages.deduplicate import MEMORY_BYTES
from data_pipelines.stages.near_duplicates import cluster
from data_pipelines.stages.spill import Resources

_NEIGHBOURS = 8
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is joined."""

    documents: int = 3_000_000
    """In all buckets."""
    group: int = 192
    """Documents of a group."""
    buckets: int = 64
    """Files of signatures."""
    memory_mib: int = MEMORY_BYTES >> 20
    """What DuckDB may use."""
    folder: Path | None = None
    """Where files are written; the temporary folder by default."""


def main(options: Options) -> None:
    """Prints one line."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        per_bucket = options.documents // options.buckets
        signatures = [folder / f"signatures-{bucket}" for bucket in range(options.buckets)]
        for bucket, path in enumerate(signatures):
            write_digests(path, bucket, per_bucket)
        num_groups = options.buckets * per_bucket // options.group
        num_pairs = write_pairs(folder / "pairs", options, per_bucket, num_groups)
        removed = [folder / f"removed-{bucket}" for bucket in range(options.buckets)]
        scratch, sizes = folder / "scratch", folder / "sizes"
        start, cpu_start = time.perf_counter(), time.process_time()
        with Watch(scratch) as watch:
            resources = Resources(scratch=scratch, memory_bytes=options.memory_mib << 20)
            cluster(signatures, [folder / "pairs"], removed, sizes, resources)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        assert pq.read_table(sizes).to_pylist() == [
            {"documents": options.group, "groups": num_groups}
        ]
        gone = sum(pq.ParquetFile(path).metadata.num_rows for path in removed)
        assert gone == num_groups * (options.group - 1)
        print(
            f"{gone + num_groups:,} grouped documents, {num_pairs:,} pairs, {num_groups:,} groups:"
            f" {cpu:.0f} s of CPU ({wall:.0f} s); peak {peak_mib():.0f} MiB with DuckDB held to "
            f"{options.memory_mib} MiB; {watch.most_bytes / 1e9:.2f} GB on disk"
        )


def write_digests(path: Path, bucket: int, count: int) -> None:
    """What `cluster` reads of a bucket's signatures."""
    raw = np.random.default_rng(bucket).bytes(32 * count)
    digests = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, pa.py_buffer(raw)])
    pq.write_table(pa.table({"digest": digests}), path, row_group_size=1 << 14)


def write_pairs(path: Path, options: Options, per_bucket: int, num_groups: int) -> int:
    """Writes one band's pairs; gives how many."""
    lot = np.random.default_rng(0).permutation(options.buckets * per_bucket)
    members = lot[: num_groups * options.group].reshape(num_groups, options.group)
    numbers = (members // per_bucket << 32) + members % per_bucket
    schema = pa.schema([(name, pa.int64()) for name in ("a", "b", "a_length", "b_length")])
    # The longest comes first; lengths differ, so that their order is the groups' order.
    lengths = 10_000 - np.arange(options.group, dtype=np.int64)
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for at in range(1, options.group):
            for other in sorted({0, *range(max(at - _NEIGHBOURS, 0), at)}):
                columns = [numbers[:, other], numbers[:, at]]
                columns += [np.full(num_groups, lengths[each]) for each in (other, at)]
                writer.write_table(pa.table([pa.array(each) for each in columns], schema=schema))
                rows += num_groups
    return rows


class Watch:
    """Notes how large a folder becomes."""

    def __init__(self, folder: Path):
        self._folder, self._ended = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most_bytes = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            sizes = []
            for path in self._folder.rglob("*"):
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            self.most_bytes = max(self.most_bytes, sum(sizes))


def peak_mib() -> float:
    """The highest memory that this process has had."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
