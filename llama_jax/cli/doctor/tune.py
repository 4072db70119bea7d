"""The fastest step that fits: remat, rows a chip and the mesh's split, compiled one after another.

Each policy is tried with ever more rows until memory is full; then the best few are split over the
mesh in other ways. What was compiled is kept, so that a search that was stopped goes on.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llama_jax.aot.forecast import ROOM
from llama_jax.aot.splits import split_copies, split_heads, split_rows
from llama_jax.cache import cache_folder
from llama_jax.cli.doctor.page import describe
from llama_jax.cli.doctor.run import Request
from llama_jax.cli.doctor.trials import Attempts, Trial
from llama_jax.config import MeshConfig, RunConfig
from llama_jax.config.run import REMAT_POLICIES
from llama_jax.hardware import GPUS_A_NODE, Pod

_GIB = 1 << 30
_WAYS = (2, 4, 8)
_FEW = 2  # trials that are split in other ways
_LONG_ROW = 16_384  # tokens from which devices may share one


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Of a run.

    Attributes:
        usd_per_chip_hour: 0 where none was given.
        goodput: Share of the wall clock in which steps run.
    """

    usd_per_chip_hour: float
    goodput: float

    def usd(self, trial: Trial) -> float:
        """Of the recipe's whole token budget."""
        return trial.answer["run"]["chip_hours"] / self.goodput * self.usd_per_chip_hour


def tune(
    request: Request, *, rows: float, options: Mapping[str, str], price: Price, as_json: bool
) -> int:
    """Searches from so many rows a chip on, prints what was found, and returns the exit code."""
    machine = request.machine
    attempt = Attempts(machine.pod, machine.num_slices, cache_folder("doctor"), options)
    trials = list(search(request.config, machine.pod, rows, attempt))
    fitting = [trial for trial in trials if trial.fits]
    if as_json:
        print(json.dumps([_row(trial, price) for trial in pareto(fitting)], indent=2))
    elif fitting:
        _print(request, trials, price)
    if not fitting:
        reasons = dict.fromkeys(trial.failed for trial in trials if trial.failed)
        failed = f" The compiler failed: {'; '.join(reasons)}" if reasons else ""
        print(f"llama-jax doctor: nothing fits; use more chips.{failed}", file=sys.stderr)
        return 2
    return 0


def search(
    config: RunConfig, pod: Pod, rows: float, attempt: Callable[[RunConfig, float], Trial]
) -> Iterator[Trial]:
    """Trials in the order in which they are made.

    Args:
        config: To start from.
        pod: One slice.
        rows: A chip, to start each policy with.
        attempt: Compiles one.
    """
    tried: list[Trial] = []
    for policy in REMAT_POLICIES:
        with_policy = _with(config, remat=policy)
        for trial in _more_rows(with_policy, rows, attempt):
            tried.append(trial)
            yield trial
    fitting = sorted((trial for trial in tried if trial.fits), key=lambda one: -one.rate)
    for trial in fitting[:_FEW]:
        for mesh in _other_meshes(trial.config, pod):
            if _may_fit(trial, mesh):
                yield attempt(_with(trial.config, mesh=mesh), trial.rows_per_chip)
    if not fitting:
        # Where a device cannot hold its rows, several may hold one.
        smallest = _with(config, remat="full")
        for split, ways in itertools.product((split_rows, split_heads), _WAYS):
            if mesh := split(smallest, smallest.mesh, ways):
                yield attempt(_with(smallest, mesh=mesh), rows / ways)


def _with(config: RunConfig, *, remat: Any = None, mesh: MeshConfig | None = None) -> RunConfig:
    compute = dataclasses.replace(config.compute, remat=remat or config.compute.remat)
    return dataclasses.replace(config, compute=compute, mesh=mesh or config.mesh)


def _other_meshes(config: RunConfig, pod: Pod) -> Iterator[MeshConfig]:
    """With devices along axes that the run does not use yet."""
    mesh = config.mesh
    splits: list[MeshConfig | None] = []
    if mesh.tensor == 1:
        splits += [split_heads(config, mesh, ways) for ways in _WAYS]
    if mesh.context == 1 and config.data.seq_len >= _LONG_ROW:
        splits += [split_rows(config, mesh, ways) for ways in _WAYS]
    if not pod.sides and pod.count > GPUS_A_NODE and mesh.replica == 1:
        # Whole copies of the model on groups of nodes, down to one node.
        ways = pod.count // GPUS_A_NODE
        splits += [
            split_copies(mesh, ways >> halved) for halved in range(len(_WAYS)) if ways >> halved > 1
        ]
    yield from (split for split in splits if split is not None)


def _may_fit(trial: Trial, mesh: MeshConfig) -> bool:
    """Whether the state, which fewer devices split, leaves room for the rest."""
    memory, was = trial.answer["memory_bytes_per_device"], trial.config.mesh
    shards = [max(1, one.fsdp) * one.fsdp_line * one.tensor for one in (was, mesh)]
    grown = memory["arguments"] * shards[0] / shards[1]
    return grown <= ROOM * memory["limit"]


def _more_rows(
    config: RunConfig, rows: float, attempt: Callable[[RunConfig, float], Trial]
) -> Iterator[Trial]:
    while True:
        trial = attempt(config, rows)
        yield trial
        if not trial.fits:
            return
        memory = trial.answer["memory_bytes_per_device"]
        grown = memory["arguments"] + 2 * (memory["peak"] - memory["arguments"])
        if grown > ROOM * memory["limit"]:
            return
        rows *= 2


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """Those than which no other is both faster and smaller, the fastest first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (-trial.rate, trial.peak)):
        if not kept or trial.peak < kept[-1].peak:
            kept.append(trial)
    return kept


def _row(trial: Trial, price: Price) -> dict[str, Any]:
    return {
        "overrides": trial.overrides,
        "rows_per_chip": trial.rows_per_chip,
        "peak_bytes": trial.peak,
        "predicted": trial.answer["predicted"],
        "usd": price.usd(trial) or None,
    }


def _print(request: Request, trials: Sequence[Trial], price: Price) -> None:
    from rich.console import Console
    from rich.table import Table

    best = pareto([trial for trial in trials if trial.fits])
    table = Table(title=describe(request), title_justify="left", title_style="bold", box=None)
    priced = ["$ of the run"] if price.usd_per_chip_hour else []
    for name in ("", "us a token and chip", "MFU causal", "peak GiB", *priced):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for trial in sorted(trials, key=lambda trial: (-trial.rate, trial.peak)):
        style = "green" if trial in best else "dim"
        peak = "" if trial.peak == float("inf") else f"{trial.peak / _GIB:,.1f}"
        if trial.fits:
            mfu = trial.answer["predicted"]["mfu_causal"]
            cells = [f"{1e6 / trial.rate:,.1f}", f"{mfu:.1%}", peak]
            cells += [f"{price.usd(trial):,.0f}"] if priced else []
        else:
            cells = ["failed" if trial.failed else "does not fit", "", peak]
        why = f"\nfailed: {trial.failed}" if trial.failed else ""
        table.add_row(trial.overrides + why, *cells, style=style)
    console = Console(highlight=False)
    console.print(table)
    console.print("green: nothing that was tried is both faster and smaller; all are predictions")
    console.print(f"\nuse: {best[0].overrides}", style="bold")
