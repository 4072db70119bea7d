"""Whether a written recipe runs on its pod: the doctor compiles it, in a process of its own."""

import dataclasses
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from llama_jax.cli.doctor.progress import stage
from llama_jax.hardware import Pod

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the doctor said of a recipe.

    Attributes:
        command: That asks it.
        fits: Whether the step fits; None where it was not compiled.
        told: By how much it fits or does not, or why it was not compiled.
        answer: The doctor's own document; empty where it was not compiled.
    """

    command: str
    fits: bool | None
    told: str
    answer: dict[str, Any] = dataclasses.field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For programs."""
        told = {"command": self.command, "fits": self.fits, "told": self.told}
        kept = ("memory_bytes_per_device", "needed_bytes", "limit_bytes", "predicted", "run")
        return told | {name: self.answer[name] for name in kept if name in self.answer}

    def __str__(self) -> str:
        if self.fits is None:
            return f"Not compiled: {self.told} Later: {self.command}"
        return f"Compiled: {self.told}"


def compile_recipe(
    path: Path, pod: Pod | None, *, minutes: float, goodput: float, usd_per_chip_hour: float
) -> Verdict:
    """Has the doctor compile a recipe, where the compiler of its pod is installed.

    Args:
        path: The recipe; a .py one says itself how it is laid over the pod.
        pod: Target; None where none was named.
        minutes: Most that it may take; 0 to leave it out.
        goodput: Share of the wall clock in which steps run.
        usd_per_chip_hour: Price, or 0.
    """
    name = f"{pod.chip.name}:{pod.topology or pod.count}" if pod else "CHIP:GRID"
    option = "--pod" if path.suffix == ".py" and pod else "--topology"
    arguments = ["doctor", str(path), option, name, "--goodput", f"{goodput:g}"]
    if usd_per_chip_hour:
        arguments += ["--usd-per-chip-hour", f"{usd_per_chip_hour:g}"]
    command = f"llama-jax {shlex.join(arguments)}"
    if why := _obstacle(pod, minutes):
        return Verdict(command=command, fits=None, told=why)
    run = [sys.executable, "-m", "llama_jax.cli.main", *arguments, "--json"]
    with stage(f"compiling for {name} (at most {minutes:g} minutes)"):
        try:
            # A process can be ended; the planner itself needs no JAX.
            done = subprocess.run(  # noqa: S603
                run, capture_output=True, text=True, timeout=60 * minutes
            )
        except subprocess.TimeoutExpired:
            why = f"it took longer than --compile-minutes={minutes:g}."
            return Verdict(command=command, fits=None, told=why)
    if not done.stdout:
        return Verdict(command=command, fits=None, told=_refusal(done.stderr, done.returncode))
    answer = json.loads(done.stdout)
    return Verdict(command=command, fits=answer["fits"], told=_tell(answer), answer=answer)


def _obstacle(pod: Pod | None, minutes: float) -> str:
    """Why nothing can be compiled; empty where it can."""
    if pod is None:
        return "no --chips were named."
    if not minutes:
        return "--compile-minutes=0 leaves it out."
    library, extra = ("libtpu", "tpu") if pod.topology else ("jax_cuda12_plugin", "cuda")
    if importlib.util.find_spec(library) is None:
        return f"{library} is not installed (pip install 'llama-jax[{extra}]')."
    return ""


def _refusal(stderr: str, code: int) -> str:
    lines = stderr.strip().splitlines() or [f"exit code {code}"]
    marked = (line for line in reversed(lines) if line.startswith("llama-jax"))
    return f"the doctor failed: {next(marked, lines[-1])}"


def _tell(answer: dict[str, Any]) -> str:
    if not answer["fits"]:
        return f"does not fit: {answer['advice']}"
    memory, predicted, run = (answer[n] for n in ("memory_bytes_per_device", "predicted", "run"))
    spare = memory["limit"] - memory["peak"]
    return (
        f"fits, {memory['peak'] / _GIB:,.1f} of {memory['limit'] / _GIB:,.1f} GiB on each device, "
        f"{spare / _GIB:,.1f} to spare. Predicted: {predicted['step_seconds']:.3g} s a step, MFU "
        f"{predicted['mfu_causal']:.1%} (causal attention), the whole run {run['days']:,.2f} days."
    )
