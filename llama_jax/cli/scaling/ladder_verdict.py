"""What the runs of a ladder say: a law, what it predicts before they are trained, and the check."""

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.atomic import write_atomically
from llama_jax.cli.scaling.ladder_rates import Choice, choose_rates
from llama_jax.cli.scaling.ladder_runs import LadderRun

if TYPE_CHECKING:
    from llama_jax.scaling.checks import Check, Prediction
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.runs import Runs

Result = dict[str, Any]
_PREDICTIONS = "predictions.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The law of the runs that are fitted, and what it says of those that are not.

    Attributes:
        runs: That were fitted.
        fit: Their law.
        predictions: By the name of the run that is held out.
        made: When, in UTC.
        seen: Held-out runs that were trained by then.
    """

    runs: "Runs"
    fit: "Fit"
    predictions: "dict[str, Prediction]"
    made: str
    seen: tuple[str, ...]


def counted(results: Sequence[Result]) -> list[Result]:
    """Runs of the best learning rate of each size and length, without those that diverged."""
    return [run for choice in choose_rates(results) for run in choice.best.runs]


def judge(
    results: Sequence[Result], held_out: Sequence[LadderRun], out: Path, resamples: int
) -> Verdict:
    """Fits the runs that are trained, writes their law, and what it says of those that are not.

    Each law is dated, and added to those that were made before in the same folder.

    Raises:
        ValueError: If the runs tell no law.
    """
    from llama_jax.recipe import to_json
    from llama_jax.scaling.checks import predict
    from llama_jax.scaling.fit import fit_loss

    fitted = _runs([result for result in counted(results) if not result["held_out"]])
    try:
        fit = fit_loss(fitted, resamples=resamples)
    except ValueError as refusal:
        untrained = " The runs held out are not trained: no law predicts them." if held_out else ""
        raise ValueError(f"{refusal}{untrained}") from refusal
    write_atomically(out / "law.json", to_json(fit.law))
    said = predict(fit, fitted, [run.params for run in held_out], [run.tokens for run in held_out])
    predictions = {run.name: one for run, one in zip(held_out, said, strict=True)}
    made, seen = _date(fit, predictions, out)
    return Verdict(runs=fitted, fit=fit, predictions=predictions, made=made, seen=seen)


def _date(
    fit: "Fit", predictions: "dict[str, Prediction]", out: Path
) -> tuple[str, tuple[str, ...]]:
    """When this law was first made, and which of the runs that it predicts were trained then."""
    path = out / _PREDICTIONS
    before = json.loads(path.read_text()) if path.is_file() else []
    law = {name: getattr(fit.law, name) for name in ("A", "B", "E", "alpha", "beta")}
    told = {name: dataclasses.asdict(one) for name, one in predictions.items()}
    told = json.loads(json.dumps(told))
    for entry in before:
        if entry["law"] == law and entry["predictions"] == told:
            return entry["made"], tuple(entry["trained_before"])
    seen = tuple(name for name in predictions if (out / name / "ladder.json").is_file())
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"made": made, "law": law, "predictions": told, "trained_before": list(seen)}
    write_atomically(path, json.dumps([*before, entry], indent=2) + "\n")
    return made, seen


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """All that a ladder came to.

    Attributes:
        verdict: The law, and what it predicted.
        checks: By the name of the run that was held out.
        choices: The learning rates of each size and length.
        diverged: Names of runs.
        out: Folder of it all.
    """

    verdict: Verdict
    checks: "dict[str, Check]"
    choices: list[Choice]
    diverged: list[str]
    out: Path

    def document(self) -> dict[str, Any]:
        """For programs."""
        from llama_jax.scaling.estimates import constants
        from llama_jax.scaling.replicates import seed_noise

        fit, noise = self.verdict.fit, seed_noise(self.verdict.runs)
        return {
            "estimates": {name: value.document() for name, value in constants(fit).items()},
            "note": fit.law.about.note,
            "runs_fitted": len(self.verdict.runs),
            "seed_noise": None if noise is None else noise.document(),
            "learning_rates": [choice.document() for choice in self.choices],
            "diverged": self.diverged,
            "predicted_at": self.verdict.made,
            "predictions": [
                {"run": name, "trained_before": name in self.verdict.seen} | check.document()
                for name, check in self.checks.items()
            ],
            "table": str(self.out / "runs.csv"),
            "law_file": str(self.out / "law.json"),
            "predictions_file": str(self.out / _PREDICTIONS),
            "picture": str(self.out / "ladder.png"),
        }

    def lines(self) -> list[str]:
        """For people."""
        from llama_jax.scaling.replicates import seed_noise

        lines = []
        if (noise := seed_noise(self.verdict.runs)) is not None:
            lines.append(str(noise))
        for name, check in self.checks.items():
            lines += check.lines(name)
            if name in self.verdict.seen:
                lines.append("  this law was made after the run was trained")
        lines += [f"left out, diverged: {name}" for name in self.diverged]
        files = ("runs.csv", "law.json", _PREDICTIONS, "ladder.png")
        return [*lines, ", ".join(str(self.out / name) for name in files)]


def tell_law(verdict: Verdict) -> list[str]:
    """The law and what it predicts, for people."""
    from llama_jax.scaling.estimates import constants

    fit = verdict.fit
    values = ", ".join(f"{name} {one.value:.5g}" for name, one in constants(fit).items())
    note = f" ({fit.law.about.note})" if fit.law.about.note else ""
    lines = [f"{len(verdict.runs)} runs: {values}{note}"]
    for name, said in verdict.predictions.items():
        ends = said.interval_95
        told = f" ({ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
        lines.append(f"{name}, predicted at {verdict.made}: {said.loss:.4f}{told}")
    return lines


def check(verdict: Verdict, results: Sequence[Result], out: Path) -> Outcome:
    """Compares what was predicted with what runs came to, and draws it."""
    from llama_jax.scaling.checks import Check
    from llama_jax.scaling.pictures import plot_ladder

    good = [result for result in counted(results) if result["held_out"]]
    checks = {
        result["run"]: Check(prediction=verdict.predictions[result["run"]], measured=result["loss"])
        for result in good
    }
    plot_ladder(verdict.runs, verdict.fit, _runs(good), out / "ladder.png")
    choices = [choice for choice in choose_rates(results) if len(choice.rates) > 1]
    outcome = Outcome(
        verdict=verdict,
        checks=checks,
        choices=choices,
        diverged=[result["run"] for result in results if result["diverged"]],
        out=out,
    )
    write_atomically(out / "summary.json", json.dumps(outcome.document(), indent=2) + "\n")
    return outcome


def _runs(results: Sequence[Result]) -> "Runs":
    from llama_jax.scaling.runs import make_runs

    return make_runs(*([run[name] for run in results] for name in ("params", "tokens", "loss")))
