"""Conversions against `cp` of the same bytes: rate and peak memory, each in a process of its own.

Command:  python benchmarks/convert.py [--layers 8] [--embed 1024] [--mlp 2816] [--folder .]
          7B (needs 28 GB of disk): --layers 32 --embed 4096 --mlp 11008
Prints:   one line a step: seconds, MB/s, share of cp's rate, peak resident memory, load.

Random bfloat16 weights in the Hugging Face layout are copied with `cp` and flushed, imported, and
exported again; all three end with the bytes on the disk. `convert check` compares each result with
its source bit by bit. The folder's disk must hold the weights twice.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.convert.hugging_face_config import model_config
from llama_jax.convert.mapping import tensors_of
from llama_jax.convert.result_folder import result_folder
from llama_jax.convert.safetensors import size_bytes, write


def write_random_model(folder: Path, model: ModelConfig) -> int:
    """Writes config.json and safetensors of finite random bits; returns their bytes."""
    config = json.dumps(model_config(model, "bfloat16"))
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(model)}
    rng = np.random.default_rng(0)
    # Without the exponent's highest bit every value is finite, and at most 1 or so.
    block = (rng.integers(0, 1 << 16, 1 << 20, np.uint16) & 0xBFFF).view(np.uint8)

    def read(name: str) -> Iterator[memoryview]:
        left = size_bytes(shapes[name], "bfloat16")
        while left:
            piece = block[: min(left, block.size)].data
            left -= len(piece)
            yield piece

    with result_folder(folder, None) as unfinished:
        (unfinished.folder / "config.json").write_text(config)
        files, _ = write(
            unfinished,
            shapes,
            read,
            dtypes=dict.fromkeys(shapes, "bfloat16"),
            max_shard_bytes=5_000_000_000,
        )
    return sum(entry["bytes"] for entry in files.values())


def run(name: str, num_bytes: int, command: list[str], baseline: float | None) -> float:
    """Runs a command, prints its line, and returns its bytes a second."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, message
    seconds = time.perf_counter() - started
    share = f", {num_bytes / seconds / baseline:.0%} of cp" if baseline else ""
    print(
        f"{name:<10} {seconds:8.1f} s {num_bytes / seconds / 1e6:8,.0f} MB/s{share}, "
        f"peak {usage.ru_maxrss / 1e6:.2f} GB, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return num_bytes / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("layers", 8), ("embed", 1024), ("mlp", 2816), ("vocab", 32_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    model = ModelConfig(
        num_layers=options.layers,
        embed_dim=options.embed,
        mlp_dim=options.mlp,
        num_heads=options.embed // 128,
        num_kv_heads=options.embed // 128,
        head_dim=128,
        vocab_size=options.vocab,
        max_seq_len=4096,
    )
    convert = [sys.executable, "-m", "llama_jax.cli.main", "convert"]
    with tempfile.TemporaryDirectory(dir=options.folder.absolute()) as folder:
        hf, copied, run_dir, back = (f"{folder}/{name}" for name in ("hf", "cp", "run", "back"))
        num_bytes = write_random_model(Path(hf), model)
        print(f"{num_bytes:,} bytes, {options.layers} layers", flush=True)
        command = ["sh", "-c", f"cp -r {hf} {copied} && sync -f {copied}"]
        baseline = run("cp", num_bytes, command, None)
        shutil.rmtree(copied)
        run("from-hf", num_bytes, [*convert, "from-hf", hf, run_dir], baseline)
        run("check", num_bytes, [*convert, "check", hf, run_dir], baseline)
        shutil.rmtree(hf)
        arguments = ["to-hf", run_dir, back, "--without-tokenizer"]
        run("to-hf", num_bytes, [*convert, *arguments], baseline)
        run("check", num_bytes, [*convert, "check", run_dir, back], baseline)


if __name__ == "__main__":
    main()
