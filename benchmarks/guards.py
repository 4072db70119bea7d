"""What the guards of a run cost: spikes, watchdog, account of time, order of tokens, pace of hosts.

Commands: python benchmarks/guards.py --blocks 12 --updates 20 --on-spike skip
          python benchmarks/guards.py --processes 2

Two real runs, each with a step of its own: blocks of updates of the one with all guards and of the
one without any take turns, so that both see the same machine. Wall time is what counts, and on a
busy machine says little; the processor time of the loop's thread and of the guards alone say more.
With `--on-spike skip` the guarded run's step compares loss and gradient norm with ceilings from a
full window, and keeps what it had where they are exceeded. With `--processes` so many processes of
one device each make both runs; the guarded one agrees at each update on whether to stop, and tells
the others its pace and that it lives. What is printed is the first process's.
"""

import contextlib
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from llama_jax.config import GuardConfig, LogConfig, MeshConfig, RunConfig
from llama_jax.observe.goodput import GoodputLog, WallTime, WorkClock
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.recipe import load_recipe
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train import parts as run_parts
from llama_jax.train import processes
from llama_jax.train.guards import StopRequest
from llama_jax.train.hosts import Hosts, HostTimes, Pace
from llama_jax.train.ledger import Ledger
from llama_jax.train.loop import _Run
from llama_jax.train.parts import open_parts
from llama_jax.train.roll_call import RollCall
from llama_jax.train.spike_skip import SpikeSkip
from llama_jax.train.spikes import SpikeGuard
from llama_jax.train.token_order import TokenOrder
from llama_jax.train.trial import reduced, write_data
from llama_jax.train.watchdog import Watchdog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    blocks: int = 12
    """Of each kind."""
    updates: int = 20
    """In a block."""
    log_every: int = 10
    """Updates between two lines of metrics, as recipes have it."""
    embed_dim: int = 256
    num_layers: int = 4
    seq_len: int = 256
    on_spike: Literal["report", "skip"] = "report"
    """What the guarded run does about a spike."""
    processes: int = 1
    """That make both runs together."""
    json: bool = False
    """Print one JSON document."""


class _NoGoodput:
    def note(self, step: int) -> None: ...

    def total(self) -> WallTime:
        return _NOTHING


class _NoTokenOrder(TokenOrder):
    def add(self, done: int, batch: Any) -> None: ...


class _NoPace:
    def look(self, step: int, updates: int, seconds: float) -> tuple[HostTimes, None]:
        return HostTimes(step, seconds / updates, 0.0, 0.0), None


class _NoClock(WorkClock):
    def lap(self, kind: str) -> float:
        return 0.0

    @property
    def training(self) -> float:
        return time.monotonic()


class _NoWatchdog:
    def expect(self, step: int, what: str, *, long: bool = False) -> None: ...


_NOTHING = WallTime(dict.fromkeys(WorkClock().seconds, 0.0))


class _NeverStop(StopRequest):
    def at(self, step: int) -> bool:
        return False


def small_run(options: Options, data: Path) -> RunConfig:
    """A model whose update takes about as long as ten of the trial's, on the trial's data."""
    config = load_recipe("demo")
    total = (options.blocks + 1) * options.updates
    config = reduced(config, data, num_steps=total, save_every=total + 1)
    model = dataclasses.replace(
        config.model,
        embed_dim=options.embed_dim,
        mlp_dim=3 * options.embed_dim,
        num_layers=options.num_layers,
        head_dim=options.embed_dim // 4,
        max_seq_len=options.seq_len,
    )
    return dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, seq_len=options.seq_len),
        mesh=MeshConfig(),
        guards=GuardConfig(on_spike=options.on_spike),
        log=LogConfig(every_steps=options.log_every, tensorboard=False),
    )


def guarded(
    stack: contextlib.ExitStack, config: RunConfig, mesh: jax.sharding.Mesh, path: Path
) -> tuple[Any, Any]:
    """A run with all guards and its first state."""
    hosts, clock = Hosts(), WorkClock()
    folder = stack.enter_context(RunDirectory(path, lock=processes.is_first()))
    watchdog = stack.enter_context(Watchdog(folder.path, config.guards, hosts))
    parts, state = stack.enter_context(open_parts(config, folder, mesh, clock, hosts))
    run = _Run(parts, StopRequest(), watchdog)
    if config.guards.on_spike == "skip":  # as after some hundred updates, none of which spikes
        usual = random.Random(0)
        run.spikes._made.extend(
            (-step, usual.gauss(50, 10), usual.gauss(50, 10))
            for step in range(config.guards.spike_window, 0, -1)
        )
    return run, state


def bare(
    stack: contextlib.ExitStack, config: RunConfig, mesh: jax.sharding.Mesh, path: Path
) -> tuple[Any, Any]:
    """The same without any."""
    config = dataclasses.replace(config, guards=GuardConfig())
    folder = stack.enter_context(RunDirectory(path, lock=processes.is_first()))
    run_parts.TokenOrder = _NoTokenOrder
    parts, state = stack.enter_context(open_parts(config, folder, mesh, WorkClock(), Hosts()))
    run_parts.TokenOrder = TokenOrder
    run: Any = _Run(parts, _NeverStop(), _NoWatchdog())  # pyright: ignore
    run.clock = _NoClock()
    run.seconds_to_first_step = 1.0  # nobody waits for the first update, nor says so
    run.ledger = Ledger([run.non_finite], config.log.every_steps, run._report, run.clock)
    run.journal._goodput, run.journal._pace = _NoGoodput(), _NoPace()
    return run, state


def main(options: Options) -> None:
    """Runs the comparison, in several processes if it is asked to."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(os.environ.get("GUARDS_SCRATCH", scratch))
        if processes.find_arguments(os.environ) is None:
            write_data(folder / "data", load_recipe("demo"))
            if options.processes > 1:
                start_all(options.processes, folder)
                return
        processes.join()
        processes.meet()
        compare(options, folder)


def start_all(count: int, folder: Path) -> None:
    """Has this program run in several processes, and waits for them."""
    with processes.hold_port() as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
        started = [
            subprocess.Popen(
                [sys.executable, __file__, *sys.argv[1:]],
                env=os.environ
                | {
                    "GUARDS_SCRATCH": str(folder),
                    "LLAMA_JAX_COORDINATOR": address,
                    "LLAMA_JAX_NUM_PROCESSES": str(count),
                    "LLAMA_JAX_PROCESS_ID": str(index),
                    "JAX_PLATFORMS": "cpu",
                    "JAX_NUM_CPU_DEVICES": "1",
                    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
                },
                stdout=subprocess.DEVNULL if index else None,
                stderr=subprocess.DEVNULL,
            )
            for index in range(count)
        ]
        codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"the processes ended with {codes}")


def compare(options: Options, scratch: Path) -> None:
    """Makes blocks of updates of both runs in turn, and tells."""
    wall: dict[str, list[float]] = {"guarded": [], "bare": []}
    cpu: dict[str, list[float]] = {"guarded": [], "bare": []}
    with contextlib.ExitStack() as stack:
        config = small_run(options, scratch / "data")
        stack.enter_context(use_layout(mesh := make_mesh(config.mesh)))
        runs = {
            made.__name__: made(stack, config, mesh, scratch / made.__name__)
            for made in (guarded, bare)
        }
        for block in range(options.blocks + 1):
            for kind in (list(runs), list(runs)[::-1])[block % 2]:
                run, state = runs[kind]
                started, began = time.perf_counter(), time.thread_time()
                for done in range(block * options.updates, (block + 1) * options.updates):
                    state = run._update(done, state)
                    run.stop.at(done + 1)
                run.ledger.flush()
                runs[kind] = run, state
                if block:  # the first one compiles
                    wall[kind].append((time.perf_counter() - started) / options.updates)
                    cpu[kind].append((time.thread_time() - began) / options.updates)
        skipped = runs["guarded"][0].non_finite.skipped
        assert not skipped, f"{skipped} updates were passed over, and were to be none"
    if processes.is_first():
        tell(options, wall, cpu)


def least(work: Callable[[int], object], each: int = 500) -> float:
    """Processor seconds of this thread that some work takes, at their least of five tries."""
    turns = []
    for _ in range(5):
        began = time.thread_time()
        for turn in range(each):
            work(turn)
        turns.append((time.thread_time() - began) / each)
    return min(turns)


def beat_seconds() -> float:
    """Processor seconds of the thread that tells the others that a process lives, a beat."""
    with tempfile.TemporaryDirectory() as scratch:
        roll_call = RollCall(Path(scratch), Hosts())
        return least(lambda turn: roll_call.beat(turn, "update", 10.0), each=50)


def alone(log_every: int, on_spike: str) -> float:
    """Processor seconds an update that the guards take by themselves."""
    rng, each = random.Random(0), 500
    with tempfile.TemporaryDirectory() as scratch:
        folder, clock = Path(scratch), WorkClock()
        if on_spike == "skip":
            spikes: Any = SpikeSkip(GuardConfig(), print)
        else:
            spikes = SpikeGuard(GuardConfig(), print)
        watchdog = Watchdog(folder, GuardConfig(), Hosts())
        goodput = GoodputLog(folder / "goodput.jsonl", clock, step=0, write=True)
        pace = Pace(Hosts(), clock)
        numbers = [
            {
                "loss_nats_per_token": rng.gauss(3, 0.03),
                "grad_norm": rng.gauss(1, 0.03),
                "skipped": 0.0,
            }
            for _ in range(each)
        ]
        an_update = (
            least(lambda turn: spikes.see(turn, numbers[turn]))
            + least(lambda turn: spikes.ceilings(each + 10))
            + least(lambda turn: watchdog.expect(turn, f"update {turn:,}"))
            + 7 * least(lambda turn: clock.lap("steps"))
        )
        a_line = (
            least(lambda turn: pace.look(turn, 10, 1.0))
            + least(goodput.note)
            + least(lambda turn: goodput.total().metrics())
        )
    return an_update + a_line / log_every


def median_and_error(values: list[float]) -> tuple[float, float]:
    """A median, and how far another try's would be: its standard error by resampling."""
    rng = random.Random(0)
    tries = [statistics.median(rng.choices(values, k=len(values))) for _ in range(1000)]
    return statistics.median(values), statistics.stdev(tries)


def tell(options: Options, wall: dict[str, list[float]], cpu: dict[str, list[float]]) -> None:
    """Prints medians, and what the guards add."""
    update = statistics.median(wall["bare"])
    pairs = zip(wall["guarded"], wall["bare"], strict=True)
    extra_wall, error = median_and_error([with_all - without for with_all, without in pairs])
    extra_cpu = statistics.median(cpu["guarded"]) - statistics.median(cpu["bare"])
    result = {
        "update_seconds": update,
        "added_wall_seconds": extra_wall,
        "added_wall_share": extra_wall / update,
        "added_wall_share_error": error / update,
        "added_thread_cpu_seconds": extra_cpu,
        "added_thread_cpu_share": extra_cpu / update,
        "guards_alone_cpu_seconds": alone(options.log_every, options.on_spike),
        "beat_cpu_seconds": beat_seconds(),
        "processes": options.processes,
        "blocks": options.blocks,
        "updates_a_block": options.updates,
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:<26} {value:.6g}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
