"""Conversions against `cp` of the same bytes: rate and peak memory, each in a process of its own.

Command:  python benchmarks/convert.py [--layers 8] [--embed 1024] [--mlp 2816] [--arms hf ...]
          7B in bfloat16 (needs 41 GB of disk): --layers 32 --embed 4096 --mlp 11008 --arms hf meta
          whether depth costs memory: --layers 8 32
Arms:     hf         bfloat16 from a Hugging Face folder, back to one, and to one of float32
          float32    float32 likewise, and rounded to bfloat16
          meta       bfloat16 to Meta's files of one rank and of two, and from those of two
          optimizer  float32 with AdamW's moments, both ways (12 bytes a parameter)
          trained    a checkpoint as training saves it, with moments (in memory while it is made)
Prints:   one line a step: seconds, MB/s read and written, share of what `cp` of the step's source
          and a flush reached right before, peak resident memory, load. Sources are read once before
          both. `check` compares each result with its source bit by bit.

Weights are random finite bits. The folder's disk must hold an arm's weights three times.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.convert.hugging_face_config import ExportDtype, model_config
from llama_jax.convert.mapping import tensors_of
from llama_jax.convert.moments import FACTS, FOLDER, FORMAT, decays
from llama_jax.convert.result_folder import result_folder
from llama_jax.convert.safetensors import size_bytes, write

ARMS = ("hf", "float32", "meta", "optimizer", "trained")
PROGRAM = """
import re, sys
from llama_jax.cli.main import main
rc = main(["convert", *sys.argv[2:]])
status = open("/proc/self/status").read()
open(sys.argv[1], "w").write(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
sys.exit(rc)
"""
# A process of its own, for it holds all of what training would.
TRAINED = """
import dataclasses, sys
import jax
import jax.numpy as jnp
from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.convert.imported_run import run_config
from llama_jax.config import MeshConfig
from llama_jax.convert.hugging_face_config import read_model_config
from llama_jax.model import init_params
from llama_jax.recipe import to_json
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import init_state
from pathlib import Path

folder, run = map(Path, sys.argv[1:])
config = run_config("trained", read_model_config(folder)[0])
run.mkdir()
(run / "config.json").write_text(to_json(config))
mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
with use_layout(mesh), Checkpointer(run / "checkpoints") as checkpointer:
    _, params = init_params(config.model, config.compute, 0)
    state = init_state(params, make_optimizer(config.optimizer))
    # Moments of zero would hardly take a byte.
    noise = jnp.abs(jax.random.normal(jax.random.key(1), (1 << 20,)))
    fill = lambda x: jnp.resize(noise, x.shape) if x.ndim else x
    state = dataclasses.replace(state, opt_state=jax.tree.map(fill, state.opt_state))
    meta = {"step": 0, "samples": 0, "first_sample": 0, "tokens": 0}
    checkpointer.save(0, state, meta)
"""


def write_random_model(folder: Path, model: ModelConfig, dtype: ExportDtype) -> None:
    """Writes config.json and safetensors of finite random bits."""
    with result_folder(folder, None) as unfinished:
        config = json.dumps(model_config(model, dtype))
        (unfinished.folder / "config.json").write_text(config)
        write_random_tensors(unfinished, model, dtype)


def write_random_tensors(unfinished, model: ModelConfig, dtype: str) -> None:
    """Writes safetensors of finite random bits, none of them below zero."""
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(model)}
    words = np.random.default_rng(0).integers(0, 1 << 16, 1 << 20, np.uint16)
    # Without the exponent's highest bit every value is finite, and at most 1 or so.
    words[:: 1 if dtype == "bfloat16" else 2] &= 0x3FFF
    block = np.roll(words, 0 if dtype == "bfloat16" else 1).view(np.uint8)

    def read(name: str) -> Iterator[memoryview]:
        left, start = size_bytes(shapes[name], dtype), 4 * zlib.crc32(name.encode()) % block.size
        while left:
            piece = block[start : start + left].data
            left, start = left - len(piece), 0
            yield piece

    dtypes = dict.fromkeys(shapes, dtype)
    write(unfinished, shapes, read, dtypes=dtypes, max_shard_bytes=5_000_000_000)


def write_random_moments(folder: Path, model: ModelConfig) -> None:
    """Adds AdamW's moments to a folder."""
    for moment in ("exp_avg", "exp_avg_sq"):
        with result_folder(folder / FOLDER / moment, None) as unfinished:
            write_random_tensors(unfinished, model, "float32")
    names = {True: [], False: []}
    for tensor in tensors_of(model):
        names[decays(tensor)].append(tensor.name)
    groups = [
        {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "names": names[decayed]}
        | {"weight_decay": 0.1 if decayed else 0.0}
        for decayed in (True, False)
    ]
    said = {"format": FORMAT, "updates": 10, "groups": groups, "run": None}
    (folder / FOLDER / FACTS).write_text(json.dumps(said))


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def timed(command: list[str]) -> float:
    """Seconds of a command, which must end well."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started


class Arm:
    """Steps in a folder, each told against `cp` of its source."""

    def __init__(self, folder: Path, model: ModelConfig):
        self.folder, self.model = folder, model

    def step(self, source: str, result: str, kind: str, *options: str) -> None:
        """Converts; both are names in the folder."""
        origin, target = self.folder / source, self.folder / result
        copied = self.folder / "copied"
        size = size_of(origin)
        # Both find what fits of their source in the page cache: results are written past it.
        timed(["sh", "-c", f"find {origin} -type f -exec cat {{}} + > /dev/null"])
        seconds = timed(["sh", "-c", f"cp -r {origin} {copied} && sync -f {copied}"])
        shutil.rmtree(copied)
        baseline = 2 * size / seconds
        told = self.run(kind, str(origin), str(target), *options)
        moved = size + size_of(target)
        # The folder is on the disk when the command ends; so is a copy, after its flush.
        name = " ".join([kind, *options])
        print(
            f"{name:<44} {told['seconds']:7.1f} s {moved / told['seconds'] / 1e6:7,.0f} MB/s, "
            f"{moved / told['seconds'] / baseline:5.0%} of cp's {baseline / 1e6:,.0f}, "
            f"peak {told['peak'] / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )

    def check(self, first: str, second: str, *options: str) -> None:
        """Compares two folders bit by bit."""
        self.run("check", str(self.folder / first), str(self.folder / second), *options)

    def run(self, *arguments: str) -> dict[str, float]:
        """Seconds and peak memory of a conversion."""
        peak = self.folder / "peak"
        seconds = timed([sys.executable, "-c", PROGRAM, str(peak), *arguments])
        return {"seconds": seconds, "peak": 1024 * int(peak.read_text())}

    def remove(self, *names: str) -> None:
        """Makes room for what comes next."""
        for name in names:
            shutil.rmtree(self.folder / name)


def run_hf(arm: Arm, dtype: ExportDtype = "bfloat16") -> None:
    """A Hugging Face folder to ours, and back in both dtypes."""
    write_random_model(arm.folder / "hf", arm.model, dtype)
    arm.step("hf", "run", "from-hf")
    arm.check("hf", "run")
    arm.remove("hf")
    arm.step("run", "back", "to-hf", "--without-tokenizer")
    arm.check("run", "back")
    arm.remove("back")
    other = "float32" if dtype == "bfloat16" else "bfloat16"
    arm.step("run", "back", "to-hf", "--without-tokenizer", "--dtype", other)
    arm.check("run", "back", "--dtype", other)


def run_meta(arm: Arm) -> None:
    """Our folder to Meta's files, and back."""
    write_random_model(arm.folder / "hf", arm.model, "bfloat16")
    arm.run("from-hf", str(arm.folder / "hf"), str(arm.folder / "run"))
    arm.remove("hf")
    for ranks in ("1", "2"):
        arm.step("run", f"meta{ranks}", "to-meta", "--model-parallel", ranks)
        if ranks == "1":
            arm.check("run", "meta1")
            arm.remove("meta1")
    arm.step("meta2", "again", "from-meta")
    arm.check("run", "again")


def run_optimizer(arm: Arm) -> None:
    """Weights and moments of AdamW, both ways."""
    write_random_model(arm.folder / "hf", arm.model, "float32")
    write_random_moments(arm.folder / "hf", arm.model)
    arm.step("hf", "run", "from-hf", "--optimizer")
    arm.check("hf", "run")
    arm.remove("hf")
    arm.step("run", "back", "to-hf", "--without-tokenizer", "--optimizer")
    arm.check("run", "back")


def run_trained(arm: Arm) -> None:
    """What training saved, as Orbax writes it."""
    write_random_model(arm.folder / "hf", arm.model, "bfloat16")
    timed([sys.executable, "-c", TRAINED, str(arm.folder / "hf"), str(arm.folder / "run")])
    arm.remove("hf")
    for options in ([], ["--dtype", "bfloat16"], ["--optimizer"]):
        arm.step("run", "back", "to-hf", "--without-tokenizer", *options)
        arm.check("run", "back", *(options if "--dtype" in options else []))
        arm.remove("back")
    arm.step("run", "meta", "to-meta")
    arm.check("run", "meta")


def main() -> None:
    """Runs all steps of the arms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[8])
    parser.add_argument("--embed", type=int, default=1024)
    parser.add_argument("--mlp", type=int, default=2816)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=ARMS)
    options = parser.parse_args()
    arms = {"hf": run_hf, "meta": run_meta, "optimizer": run_optimizer, "trained": run_trained}
    arms["float32"] = lambda arm: run_hf(arm, "float32")
    for name in options.arms:
        for layers in options.layers:
            heads = options.embed // 128
            model = ModelConfig(
                num_layers=layers,
                embed_dim=options.embed,
                mlp_dim=options.mlp,
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=128,
                vocab_size=32_000,
                max_seq_len=4096,
            )
            with contextlib.ExitStack() as stack:
                home = tempfile.TemporaryDirectory(dir=options.folder.absolute())
                print(f"{name}, {layers} layers", flush=True)
                arms[name](Arm(Path(stack.enter_context(home)), model))


if __name__ == "__main__":
    main()
