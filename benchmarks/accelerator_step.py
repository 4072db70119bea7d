"""A recipe's training step on the accelerators of this machine, with random tokens.

Command: python benchmarks/accelerator_step.py llama3_2_1b --rows-per-device 4 --profile trace

Prints tokens/s and MFU in both conventions with the peak that they are a share of, and writes a
trace for TensorBoard or Perfetto where asked to. It is the step of `llama-jax train` with its
sharding, kernels and compiler options; loading data and saving are left out. On a machine
without an accelerator it runs too, and says what it ran on: try it with `demo` first.
"""

import contextlib
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.model.llama import resolve_dtype
from llama_jax.observe.throughput import ThroughputMeter, count_chips, find_peak
from llama_jax.recipe import load_recipe
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.feed import local_rows, make_to_devices
from llama_jax.train.program import begin_compiling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    recipe: Annotated[str, tyro.conf.Positional] = "llama3_2_1b"
    """Name or path of a recipe."""
    rows_per_device: int = 4
    """Rows of a batch on each device."""
    seq_len: int = 4096
    """Tokens of a row, at most what the model can see."""
    remat: str = ""
    """In place of the recipe's."""
    steps: int = 20
    """Updates that are timed, after two that are not."""
    profile: Path | None = None
    """Folder for a trace of three updates."""
    json: bool = False
    """Print one JSON document."""


def main(options: Options) -> None:
    """Measures, and prints what came out."""
    config = sized(load_recipe(options.recipe), options)
    mesh = make_mesh(config.mesh)
    with use_layout(mesh):
        program = begin_compiling(config, mesh)
        state = program.first_state()
        rows = local_rows(config, mesh, config.train.batch_size)
        batch = make_to_devices(config, mesh, rows, config.train.batch_size)(random_rows(config))
        started = time.perf_counter()
        train_step = program.step_after(0)
        print(f"compiled in {time.perf_counter() - started:.1f} s", file=sys.stderr)
        seconds, loss = [], float("nan")
        for number in range(options.steps + 2):
            traced = options.profile is not None and 2 <= number < 5
            with jax.profiler.trace(str(options.profile)) if traced else contextlib.nullcontext():
                started = time.perf_counter()
                state, metrics = train_step(state, batch, np.float32(1e-4))
                loss = float(metrics["loss_nats_per_token"])
            if number >= 2 and not traced:
                seconds.append(time.perf_counter() - started)
    report(options, config, seconds, loss)


def sized(config: RunConfig, options: Options) -> RunConfig:
    """The recipe with the batch that is asked for."""
    seq_len = min(options.seq_len, config.model.max_seq_len)
    remat = {"remat": options.remat} if options.remat else {}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, seq_len=seq_len),
        compute=dataclasses.replace(config.compute, **remat),
        train=dataclasses.replace(
            config.train,
            batch_size=options.rows_per_device * jax.device_count(),
            batch_ramp=(),
            accumulation_steps=1,
        ),
    )


def random_rows(config: RunConfig) -> Batch:
    """Rows of one document each."""
    B, T = config.train.batch_size, config.data.seq_len
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, (B, T + 1), np.int32)
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    ones = np.ones((B, T), np.int32)
    return Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), positions, ones)


def report(options: Options, config: RunConfig, seconds: list[float], loss: float) -> None:
    """Prints the median update."""
    peak = find_peak(jax.local_devices()[0], resolve_dtype(config.compute))
    meter = ThroughputMeter(config.model, config.data.seq_len, peak, num_chips=count_chips())
    median = statistics.median(seconds)
    throughput = meter(config.train.batch_size * config.data.seq_len, median)
    device = jax.devices()[0].device_kind
    if options.json:
        row = {
            "recipe": config.name,
            "device": device,
            "devices": jax.device_count(),
            "batch_size": config.train.batch_size,
            "seq_len": config.data.seq_len,
            "remat": config.compute.remat,
            "seconds": median,
            "peak": str(peak),
            **throughput.metrics(),
        }
        print(json.dumps(row, indent=2))
        return
    print(
        f"{config.name} on {jax.device_count()} x {device}, {config.train.batch_size} rows of "
        f"{config.data.seq_len} tokens, remat {config.compute.remat}: {median:.3f} s a step "
        f"(fastest {min(seconds):.3f}), loss {loss:.2f}\n{throughput}"
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
