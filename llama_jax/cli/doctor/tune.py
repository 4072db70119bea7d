"""The fastest step that fits: remat, rows a chip and the mesh's split, compiled one after another.

Each policy is tried with ever more rows until memory is full; then the best is split over more
devices. What was compiled is kept, so that a search that was stopped goes on.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from llama_jax.aot.compile import DoesNotFit
from llama_jax.aot.splits import mesh_flags
from llama_jax.cache import cache_folder
from llama_jax.cli.doctor.page import describe, document
from llama_jax.cli.doctor.run import Request, examine, plan_request
from llama_jax.config import RunConfig
from llama_jax.config.run import REMAT_POLICIES
from llama_jax.hardware import Pod
from llama_jax.recipe import to_json

_GIB = 1 << 30
_ROOM = 0.97  # of the memory: a forecast that is nearer to the limit is not tried
_TENSOR_SPLITS = (2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One step that was compiled.

    Attributes:
        overrides: Of the recipe, as the command line takes them.
        config: That they give.
        rows_per_chip: Of its batch.
        answer: The doctor's document; only `fits` and sizes where it does not fit.
    """

    overrides: str
    config: RunConfig
    rows_per_chip: float
    answer: dict[str, Any]

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.answer["fits"]

    @property
    def rate(self) -> float:
        """Predicted tokens a second and chip; 0 where it does not fit."""
        return self.answer["predicted"]["tokens_per_second_per_chip"] if self.fits else 0.0

    @property
    def peak(self) -> float:
        """Bytes on a device."""
        if self.fits:
            return self.answer["memory_bytes_per_device"]["peak"]
        return self.answer["needed_bytes"] or float("inf")


def tune(request: Request, *, rows: float, as_json: bool) -> int:
    """Searches from so many rows a chip on, prints what was found, and returns the exit code."""
    machine = request.machine
    attempt = Attempts(machine.pod, machine.num_slices, cache_folder("doctor"))
    trials = list(search(request.config, rows, attempt))
    fitting = [trial for trial in trials if trial.fits]
    if not fitting:
        print("llama-jax doctor: nothing fits; use more chips.", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps([_row(trial) for trial in pareto(fitting)], indent=2))
    else:
        _print(request, trials)
    return 0


def search(
    config: RunConfig, rows: float, attempt: Callable[[RunConfig, float], Trial]
) -> Iterator[Trial]:
    """Trials in the order in which they are made.

    Args:
        config: To start from.
        rows: A chip, to start each policy with.
        attempt: Compiles one.
    """
    best: Trial | None = None
    for policy in REMAT_POLICIES:
        tried = dataclasses.replace(
            config, compute=dataclasses.replace(config.compute, remat=policy)
        )
        for trial in _more_rows(tried, rows, attempt):
            yield trial
            if trial.fits and (best is None or trial.rate > best.rate):
                best = trial
    if best is None:
        return
    mesh = best.config.mesh
    for split in _TENSOR_SPLITS:
        if (
            config.model.num_kv_heads % split
            or mesh.tensor != 1
            or (mesh.fsdp != -1 and mesh.fsdp % split)
        ):
            return
        fewer = mesh.fsdp if mesh.fsdp == -1 else mesh.fsdp // split
        mesh_of_split = dataclasses.replace(mesh, tensor=split, fsdp=fewer)
        yield attempt(dataclasses.replace(best.config, mesh=mesh_of_split), best.rows_per_chip)


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
        if grown > _ROOM * memory["limit"]:
            return
        rows *= 2


def pareto(trials: list[Trial]) -> list[Trial]:
    """Those than which no other is both faster and smaller, the fastest first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (-trial.rate, trial.peak)):
        if not kept or trial.peak < kept[-1].peak:
            kept.append(trial)
    return kept


class Attempts:
    """Compiles a configuration, or finds what was kept of it.

    Args:
        pod: One slice.
        num_slices: How many.
        folder: Of what is kept.
    """

    def __init__(self, pod: Pod, num_slices: int, folder: Path):
        self._pod, self._num_slices, self._folder = pod, num_slices, folder

    def __call__(self, config: RunConfig, rows: float) -> Trial:
        request = plan_request(config, self._pod, num_slices=self._num_slices, rows_per_chip=rows)
        overrides = _overrides(request)
        path = self._folder / f"{self._key(request)}.json"
        if path.is_file():
            print(f"{overrides}: known", file=sys.stderr)
            answer = json.loads(path.read_text())
        else:
            print(overrides, file=sys.stderr)
            answer = _compile(request)
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".new")
            unfinished.write_text(json.dumps(answer))
            unfinished.replace(path)
        return Trial(overrides=overrides, config=request.config, rows_per_chip=rows, answer=answer)

    def _key(self, request: Request) -> str:
        machine = request.machine
        versions = [metadata.version(name) for name in ("jax", "libtpu") if _installed(name)]
        parts = [
            to_json(request.config),
            f"{machine.pod.chip.name} {machine.pod.topology} {machine.num_chips}",
            *versions,
            _source_hash(),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _compile(request: Request) -> dict[str, Any]:
    try:
        found = examine(request, started=time.monotonic())
    except DoesNotFit as failure:
        return {"fits": False, "needed_bytes": failure.needed, "limit_bytes": failure.limit}
    return document(found, usd_per_chip_hour=0.0, goodput=1.0)


def _overrides(request: Request) -> str:
    config = request.config
    told = f"--rows-per-chip {request.rows_per_chip:g} --compute.remat {config.compute.remat}"
    return f"{told} {mesh_flags(config.mesh)}".strip()


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "overrides": trial.overrides,
        "rows_per_chip": trial.rows_per_chip,
        "peak_bytes": trial.peak,
        "predicted": trial.answer["predicted"],
    }


def _print(request: Request, trials: list[Trial]) -> None:
    from rich.console import Console
    from rich.table import Table

    best = pareto([trial for trial in trials if trial.fits])
    table = Table(title=describe(request), title_justify="left", title_style="bold", box=None)
    for name in ("", "us a token and chip", "MFU causal", "peak GiB"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for trial in sorted(trials, key=lambda trial: (-trial.rate, trial.peak)):
        style = "green" if trial in best else "dim"
        if trial.fits:
            mfu = trial.answer["predicted"]["mfu_causal"]
            cells = [f"{1e6 / trial.rate:,.1f}", f"{mfu:.1%}", f"{trial.peak / _GIB:,.1f}"]
        else:
            cells = ["does not fit", "", f"{trial.peak / _GIB:,.1f}"]
        table.add_row(trial.overrides, *cells, style=style)
    console = Console(highlight=False)
    console.print(table)
    console.print("green: nothing that was tried is both faster and smaller; all are predictions")
    console.print(f"\nuse: {best[0].overrides}", style="bold")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _source_hash() -> str:
    """Of this package: another step is another program."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
