"""What the guards of a run cost: spikes, watchdog, account of time, pace of hosts.

Command: python benchmarks/guards.py --blocks 12 --updates 20

One real run, in one process; blocks of updates with all guards and blocks without any take turns,
so that both see the same machine. Wall time a block is what counts, and on a busy machine says
little; the processor time of the loop's thread and of the guards alone say more.
"""

import contextlib
import dataclasses
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from llama_jax.config import GuardConfig, LogConfig, MeshConfig
from llama_jax.observe.goodput import GoodputLog, WallTime, WorkClock
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.recipe import load_recipe
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.guards import NonFiniteGuard, StopRequest
from llama_jax.train.hosts import Hosts, HostTimes, Pace
from llama_jax.train.ledger import Ledger
from llama_jax.train.loop import _Run
from llama_jax.train.parts import open_parts
from llama_jax.train.spikes import SpikeGuard
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
    json: bool = False
    """Print one JSON document."""


class _NoGoodput:
    def note(self, step: int) -> None: ...

    def total(self) -> WallTime:
        return _NOTHING


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


def small_run(options: Options, data: Path) -> Any:
    """A model whose update takes about as long as ten of the trial's, on the trial's data."""
    config = load_recipe("demo")
    write_data(data, config)
    total = (2 * options.blocks + 1) * options.updates
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
        guards=GuardConfig(),
        log=LogConfig(every_steps=options.log_every, tensorboard=False),
    )


def main(options: Options) -> None:
    """Runs the comparison."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = small_run(options, scratch / "data")
        folder = stack.enter_context(RunDirectory(scratch / "run"))
        stack.enter_context(use_layout(mesh := make_mesh(config.mesh)))
        watchdog = stack.enter_context(Watchdog(folder.path, config.guards, Hosts()))
        parts, state = stack.enter_context(open_parts(config, folder, mesh, WorkClock(), Hosts()))
        run = _Run(parts, StopRequest(), watchdog)
        bare = Ledger(
            [NonFiniteGuard(10, parts.documents_of)],
            options.log_every,
            run.journal.report,
            no_clock := _NoClock(),
        )
        kinds = {
            "guarded": (run.ledger, run.clock, watchdog, parts.goodput, run.journal._pace),
            "bare": (bare, no_clock, _NoWatchdog(), _NoGoodput(), _NoPace()),
        }
        wall: dict[str, list[float]] = {kind: [] for kind in kinds}
        cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
        done = 0
        for block in range(2 * options.blocks + 1):
            kind = ("guarded", "bare")[block % 2]
            run.ledger, run.clock, run.watchdog, goodput, pace = kinds[kind]
            run.journal._goodput, run.journal._pace = goodput, pace
            started, began = time.perf_counter(), time.thread_time()
            for _ in range(options.updates):
                state = run._update(done, state)
                done += 1
            run.ledger.flush()
            if block:  # the first one compiles
                wall[kind].append((time.perf_counter() - started) / options.updates)
                cpu[kind].append((time.thread_time() - began) / options.updates)
    tell(options, wall, cpu)


def alone(log_every: int) -> float:
    """Processor seconds an update that the guards take by themselves, at their least of five."""
    rng, each = random.Random(0), 500

    def least(work: Callable[[int], object]) -> float:
        turns = []
        for _ in range(5):
            began = time.thread_time()
            for turn in range(each):
                work(turn)
            turns.append((time.thread_time() - began) / each)
        return min(turns)

    with tempfile.TemporaryDirectory() as scratch:
        folder, clock = Path(scratch), WorkClock()
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
            + least(lambda turn: watchdog.expect(turn, f"update {turn:,}"))
            + 5 * least(lambda turn: clock.lap("steps"))
        )
        a_line = (
            least(lambda turn: pace.look(turn, 10, 1.0))
            + least(goodput.note)
            + least(lambda turn: goodput.total().metrics())
        )
    return an_update + a_line / log_every


def tell(options: Options, wall: dict[str, list[float]], cpu: dict[str, list[float]]) -> None:
    """Prints medians, and what the guards add."""
    update = statistics.median(wall["bare"])
    extra_wall = statistics.median(
        guarded - bare for guarded, bare in zip(wall["guarded"], wall["bare"], strict=False)
    )
    extra_cpu = statistics.median(cpu["guarded"]) - statistics.median(cpu["bare"])
    result = {
        "update_seconds": update,
        "added_wall_seconds": extra_wall,
        "added_wall_share": extra_wall / update,
        "added_thread_cpu_seconds": extra_cpu,
        "added_thread_cpu_share": extra_cpu / update,
        "guards_alone_cpu_seconds": alone(options.log_every),
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
