"""Steps that were compiled to be compared, and what is kept of them."""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llama_jax.aot.compile import DoesNotFit, RefusedOption
from llama_jax.aot.splits import mesh_flags
from llama_jax.cli.doctor.page import document
from llama_jax.cli.doctor.run import Request, examine, plan_request
from llama_jax.config import RunConfig
from llama_jax.hardware import Pod
from llama_jax.recipe import to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One step that was compiled.

    Attributes:
        overrides: Of the recipe, as the command line takes them.
        config: That they give.
        rows_per_chip: Of its batch.
        answer: The doctor's document; `fits` and sizes where it does not fit, `failed` and why
            where the compiler failed.
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
    def failed(self) -> str:
        """Why there is no program; empty where there is one, or none that fits."""
        return self.answer.get("failed", "")

    @property
    def rate(self) -> float:
        """Predicted tokens a second and chip; 0 where it does not fit."""
        return self.answer["predicted"]["tokens_per_second_per_chip"] if self.fits else 0.0

    @property
    def peak(self) -> float:
        """Bytes on a device; infinite where nobody knows."""
        if self.fits:
            return self.answer["memory_bytes_per_device"]["peak"]
        return self.answer.get("needed_bytes") or float("inf")


class Attempts:
    """Compiles a configuration, or finds what was kept of it.

    Args:
        pod: One slice.
        num_slices: How many.
        folder: Of what is kept.
        options: Of XLA and libtpu, beside those that the run brings along.
    """

    def __init__(
        self,
        pod: Pod,
        num_slices: int,
        folder: Path,
        options: Mapping[str, str] = MappingProxyType({}),
    ):
        self._pod, self._num_slices, self._folder = pod, num_slices, folder
        self._options = options

    def __call__(self, config: RunConfig, rows: float) -> Trial:
        told = overrides(config, rows)
        print(told, file=sys.stderr, flush=True)
        try:
            request = plan_request(
                config, self._pod, num_slices=self._num_slices, rows_per_chip=rows
            )
            config, told = request.config, overrides(request.config, rows)
            answer = self._answer(request)
        except RefusedOption:
            raise
        except Exception as error:
            # Compilers of kernels have exceptions of their own, and one step that none can compile
            # is no reason to lose the others. It is not kept: a machine short of memory fails too.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"failed: {reason}", file=sys.stderr, flush=True)
            answer = {"fits": False, "failed": reason}
        return Trial(overrides=told, config=config, rows_per_chip=rows, answer=answer)

    def _answer(self, request: Request) -> dict[str, Any]:
        path = self._folder / f"{self._key(request)}.json"
        if path.is_file():
            print("known", file=sys.stderr, flush=True)
            return json.loads(path.read_text())
        answer = _compile(request, self._options)
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(answer))
        unfinished.replace(path)
        return answer

    def _key(self, request: Request) -> str:
        machine = request.machine
        versions = [metadata.version(name) for name in ("jax", "libtpu") if _installed(name)]
        parts = [
            to_json(request.config),
            f"{machine.pod.chip.name} {machine.pod.topology} {machine.num_chips}",
            json.dumps(dict(self._options), sort_keys=True),
            *versions,
            _source_hash(),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _compile(request: Request, options: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = examine(request, started=time.monotonic(), options=options)
    except DoesNotFit as failure:
        return {"fits": False, "needed_bytes": failure.needed, "limit_bytes": failure.limit}
    return document(found, usd_per_chip_hour=0.0, goodput=1.0)


def overrides(config: RunConfig, rows: float) -> str:
    """What makes a recipe this config, as the command line takes it."""
    told = f"--rows-per-chip {rows:g} --compute.remat {config.compute.remat}"
    return f"{told} {mesh_flags(config.mesh)}".strip()


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
