"""Checkpoints against the disk itself: how long training waits, and how fast the bytes land.

Command:  python benchmarks/checkpoint.py [--params 34000000] [--rounds 3] [--folder .]
Prints:   one line a way of writing the same bytes: seconds and MB/s, best and median of the rounds.

A state of N parameters is 12 N bytes: float32 parameters and two moments. All ways are run in turn
in each round, so that they see the same machine and disk: `write` is one file written and flushed
by this process, which is what the disk gives; `Checkpointer` is ours, flushed and checksummed;
`Orbax defaults` is what `AsyncCheckpointer(StandardCheckpointHandler())` does (zarr2, zstd).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import CheckpointConfig


def make_state(num_params: int) -> dict[str, dict[str, jax.Array]]:
    """Random parameters in 9 arrays, and two moments of each."""
    sizes = [num_params // 9] * 8 + [num_params - 8 * (num_params // 9)]
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        name: {
            f"w{i}": jax.random.normal(jax.random.fold_in(key, i), (n,))
            for i, n in enumerate(sizes)
        }
        for name, key in zip(("params", "mu", "nu"), keys, strict=True)
    }


def plain_write(state, folder: Path) -> dict[str, float]:
    start = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for leaf in jax.tree.leaves(state):
            file.write(np.asarray(leaf))
        os.fsync(file.fileno())
    return {"write, flushed": time.perf_counter() - start}


def ours(state, folder: Path) -> dict[str, float]:
    with Checkpointer(folder / "ours", CheckpointConfig()) as checkpointer:
        checkpointer.save(0, {"step": jnp.int32(0)}, {})  # imports and threads are paid once
        checkpointer.wait()
        checkpointer.save(1, state, {})
        checkpointer.wait()
        timing = checkpointer.last_timing
        assert timing is not None
        start = time.perf_counter()
        checkpointer.verify(1, deep=True)
        verified = time.perf_counter()
        restored, _ = checkpointer.restore(1, state, deep=False)
        jax.block_until_ready(restored)
        read = time.perf_counter()
    return {
        "Checkpointer: training waits": timing.blocked_seconds,
        "Checkpointer: complete on disk": timing.total_seconds,
        "  of which flush and checksums": timing.hash_seconds,
        "Checkpointer: verify(deep)": verified - start,
        "Checkpointer: restore": read - verified,
    }


def orbax_defaults(state, folder: Path) -> dict[str, float]:
    with ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        start = time.perf_counter()
        checkpointer.save(folder / "orbax", args=ocp.args.StandardSave(state))
        waited = time.perf_counter()
        checkpointer.wait_until_finished()
        saved = time.perf_counter()
        restored = checkpointer.restore(folder / "orbax", args=ocp.args.StandardRestore(state))
        jax.block_until_ready(restored)
        read = time.perf_counter()
    return {
        "Orbax defaults: training waits": waited - start,
        "Orbax defaults: complete, not flushed": saved - start,
        "Orbax defaults: restore": read - saved,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=int, default=34_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    args = parser.parse_args()

    state = jax.block_until_ready(make_state(args.params))
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    ways: list[Callable] = [plain_write, ours, orbax_defaults]
    seconds: dict[str, list[float]] = {}
    for round_number in range(args.rounds):
        for way in ways[round_number % 3 :] + ways[: round_number % 3]:
            folder = Path(tempfile.mkdtemp(prefix="checkpoint_bench_", dir=args.folder)).absolute()
            try:
                for name, value in way(state, folder).items():
                    seconds.setdefault(name, []).append(value)
            finally:
                shutil.rmtree(folder)
    print(f"{args.params:,} parameters, {num_bytes / 1e6:,.0f} MB, {args.rounds} rounds")
    print(f"{'':40}{'best s':>9}{'median s':>10}{'best MB/s':>12}")
    for name, values in seconds.items():
        best, median = min(values), statistics.median(values)
        print(f"{name:40}{best:9.3f}{median:10.3f}{num_bytes / best / 1e6:12,.0f}")


if __name__ == "__main__":
    main()
