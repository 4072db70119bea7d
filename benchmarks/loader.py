"""Tokens per second that one core reads, shuffles and packs from shards, and what bounds it.

Command: python benchmarks/loader.py [--directory DATA]

Everything runs in this process, pinned to one core, over the same shards: batches as training
takes them, each token of an epoch once; the same through Grain's threads; records read by
ArrayRecord alone (the limit); and TensorFlow Datasets' `as_data_source` (the peer, which neither
shuffles nor packs). Each line is the best of several rounds, in wall time and in CPU time: on a
busy machine the second is the honest one.
"""

import dataclasses
import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from llama_jax.checksum import file_sha256
from llama_jax.config import DataConfig
from llama_jax.data.dataset import Dataset, open_dataset
from llama_jax.data.shard_writer import SplitWriter, write_manifest
from llama_jax.data.shards import Manifest, SplitReader, list_sources, read_manifest
from llama_jax.data.tokenizer import find_tokenizer

VOCAB_SIZE = 32_000
TOKENS_PER_STEP = 1 << 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    directory: str = ""
    """Folder that `llama-jax data build` wrote; by default, shards of random tokens are made."""
    source: str = ""
    """Source of that folder; the first by default."""
    seq_lens: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Lengths of rows."""
    documents: int = 16_384
    """Documents of the random shards."""
    mean_tokens: int = 1000
    """Their mean length; lengths are log-normal, with the spread of web pages."""
    rounds: int = 3
    """Rounds, of which the best counts."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """Millions of tokens a second."""

    name: str
    wall: float
    cpu: float


def main(options: Options) -> None:
    """Measures and prints one line a reader."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as folder:
        directory = options.directory or str(make_shards(Path(folder), options))
        rates = measure(directory, options.source or list_sources(directory)[0], options)
    if options.json:
        print(json.dumps([dataclasses.asdict(rate) for rate in rates], indent=2))
        return
    peer = rates[-1]
    print(f"one core (number {core}), million tokens/s, best of {options.rounds}")
    print(f"{'':44} {'wall':>7} {'CPU':>7}  x TFDS (CPU)")
    for rate in rates:
        ratio = rate.cpu / peer.cpu
        print(f"{rate.name:44} {rate.wall:7.1f} {rate.cpu:7.1f}  {ratio:6.2f}")


def make_shards(directory: Path, options: Options) -> Path:
    """Writes documents of random tokens; their content does not matter to a reader."""
    rng = np.random.default_rng(0)
    spread = 1.0
    lengths = rng.lognormal(np.log(options.mean_tokens) - spread**2 / 2, spread, options.documents)
    (directory / "tokenizer.model").write_bytes(b"none")
    folder = directory / "random"
    folder.mkdir()
    splits = {}
    for split, count in (("train", options.documents), ("heldout", 0)):
        writer = SplitWriter(
            folder, "random", split, vocab_size=VOCAB_SIZE, shard_tokens=10_000_000
        )
        for number, length in enumerate(lengths[:count]):
            tokens = rng.integers(3, VOCAB_SIZE, int(length) + 2)
            writer.add(f"random/{number:08d}.html", tokens, text_bytes=4 * len(tokens))
        splits[split] = writer.close()
    sha256 = file_sha256(find_tokenizer(directory))
    write_manifest(
        folder,
        Manifest(name="random", tokenizer_sha256=sha256, vocab_size=VOCAB_SIZE, splits=splits),
    )
    return directory


def measure(directory: str, source: str, options: Options) -> list[Rate]:
    """Rates of our loader, of Grain around it, of ArrayRecord alone and of the peer."""
    manifest = read_manifest(Path(directory) / source)
    num_tokens = manifest.splits["train"].num_tokens

    def rate(name: str, tokens: int, run: Callable[[], None]) -> Rate:
        wall, cpu = float("inf"), float("inf")
        for _ in range(options.rounds):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            run()
            wall = min(wall, time.perf_counter() - wall_start)
            cpu = min(cpu, time.process_time() - cpu_start)
        return Rate(name, tokens / wall / 1e6, tokens / cpu / 1e6)

    rates = []
    for seq_len in options.seq_lens:
        batch_size = max(TOKENS_PER_STEP // seq_len, 1)
        steps = max(num_tokens // (batch_size * seq_len), 1)
        open_once = functools.partial(
            open_dataset,
            DataConfig(directory=directory, seq_len=seq_len, mixture=((source, 1.0),)),
            vocab_size=manifest.vocab_size,
            batch_size=batch_size,
        )
        tokens = steps * batch_size * seq_len
        name = f"batches of {batch_size} x {seq_len}"
        rates.append(rate(name, tokens, functools.partial(_epoch, open_once, steps)))
        name = "  the same through Grain's threads"
        rates.append(rate(name, tokens, functools.partial(_prefetched, open_once, steps)))
    rates.append(rate("ArrayRecord alone, in order", num_tokens, _raw(directory, source, False)))
    rates.append(rate("ArrayRecord alone, at random", num_tokens, _raw(directory, source, True)))
    rates.append(rate("TFDS as_data_source, in order", num_tokens, _tfds(directory, source)))
    return rates


def _epoch(open_once: Callable[[], Dataset], steps: int) -> None:
    dataset = open_once()
    for step in range(steps):
        dataset.batch(step * dataset.batch_size)


def _prefetched(open_once: Callable[[], Dataset], steps: int) -> None:
    batches = open_once().batches(0)
    for _ in itertools.islice(batches, steps):
        pass
    batches.close()


def _raw(directory: str, source: str, shuffled: bool) -> Callable[[], None]:
    folder = Path(directory) / source
    reader = SplitReader(folder, read_manifest(folder), "train")
    count = len(reader.num_tokens_of)
    order = np.random.default_rng(0).permutation(count) if shuffled else np.arange(count)

    def read() -> None:
        for chunk in np.array_split(order, max(count // 64, 1)):
            for _ in reader.read_tokens(chunk.tolist()):
                pass

    return read


def _tfds(directory: str, source: str) -> Callable[[], None]:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(Path(directory) / source))
    documents = builder.as_data_source("train")

    def read() -> None:
        for start in range(0, len(documents), 64):
            documents.__getitems__(list(range(start, min(start + 64, len(documents)))))

    return read


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
