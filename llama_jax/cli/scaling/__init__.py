"""Fit scaling laws to a table of runs; make such a table."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llama_jax.scaling.estimates import Estimate
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.fit_repeated import RepeatedFit
    from llama_jax.scaling.frontier import FrontierFit
    from llama_jax.scaling.laws import Law
    from llama_jax.scaling.runs import Runs

USAGE = """usage: llama-jax scaling fit RUNS.csv [--form FORM] [--drop-highest N] [--out LAW.json]
           [--picture FILE] [--json]
       llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--json]
       llama-jax scaling report RUNS.csv --out PAGE.html
       llama-jax scaling coordinate-check RECIPE --widths N N ... [--picture FILE] [--json]

Fits a scaling law to runs, with bootstrap intervals. RUNS.csv has a header and one run a row:
params (or N), tokens (or D) and loss; flops (or budget, C) may stand in for tokens.

forms:
  chinchilla        E + A/N^alpha + B/D^beta, Huber loss on the log loss (Hoffmann et al. 2022)
  isoflop           best size at each budget by a parabola, a power law through them
  envelope          best size at each compute from curves of each size, a power law through them
  overtrain         one exponent for both terms, least squares (Gadre et al. 2024)
  data-constrained  what repeated tokens are worth; needs unique_tokens (or U)

examples:
  llama-jax scaling fit runs.csv --picture fit.png
  llama-jax scaling fit runs.csv --drop-highest 5 --out law.json
  llama-jax plan --flops 1e21 --law law.json
  llama-jax scaling fit runs.csv --form isoflop --loss-column c4_loss
  llama-jax scaling ladder configs/ladders/tiny.py --out ladder --data demo_run/data
  llama-jax scaling report ladder/runs.csv --out ladder/report.html
  llama-jax scaling coordinate-check demo --data demo_run/data --widths 64 128 256"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling fit`."""

    form: Literal["chinchilla", "isoflop", "envelope", "overtrain", "data-constrained"] = (
        "chinchilla"
    )
    """What is fitted."""
    drop_highest: int = 0
    """Runs of highest loss that are left out, such as those that had hardly begun."""
    resamples: int | None = None
    """Bootstrap resamples; 4,000 by default, 1,000 for data-constrained; 0 leaves intervals out."""
    seed: int = 0
    """Of the resamples."""
    absolute: bool = False
    """Least absolute deviations in place of the Huber loss; chinchilla alone."""
    params_column: str = ""
    """Column of parameters."""
    tokens_column: str = ""
    """Column of tokens."""
    loss_column: str = ""
    """Column of losses."""
    flops_column: str = ""
    """Column of compute."""
    unique_tokens_column: str = ""
    """Column of unique tokens."""
    where: str = ""
    """COLUMN=VALUE: only rows that have it."""
    predict: tuple[str, ...] = ()
    """PARAMS:TOKENS of runs whose loss to predict, as in 7e9:1e12."""
    out: Path | None = None
    """File to write the law to, for `plan --law`. That of isoflop and envelope tells the best size
    without a loss, that of data-constrained what repeated tokens are worth too."""
    picture: Path | None = None
    """File to draw the fit into, .png or .svg."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling`."""
    if not argv or argv in (["-h"], ["--help"], ["fit"], ["fit", "-h"]):
        print(USAGE, file=sys.stdout if argv[-1:] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[-1:] in (["-h"], ["--help"]) else 2
    if argv[0] == "ladder":
        from llama_jax.cli.scaling.ladder import main as ladder

        return ladder(argv[1:])
    if argv[0] == "report":
        from llama_jax.cli.scaling.report import main as report

        return report(argv[1:])
    if argv[0] == "coordinate-check":
        from llama_jax.cli.scaling.coordinate_check import main as coordinate_check

        return coordinate_check(argv[1:])
    if argv[0] != "fit":
        raise ValueError(
            f"scaling {argv[0]!r} is no command. There are: fit, ladder, report, coordinate-check."
        )
    import tyro

    description = USAGE.partition("\n\n")[2]
    if argv[1].startswith("-"):
        if argv[1] == "--help":
            print(USAGE)
            return 0
        raise ValueError(f"scaling fit needs RUNS.csv before {argv[1]}.")
    options = tyro.cli(
        _Options, prog=f"llama-jax scaling fit {argv[1]}", description=description, args=argv[2:]
    )
    return _fit(Path(argv[1]), options)


def _fit(path: Path, options: _Options) -> int:
    from llama_jax.scaling.runs import read_runs

    _check(options)
    named = {
        kind: getattr(options, f"{kind}_column")
        for kind in ("params", "tokens", "loss", "flops", "unique_tokens")
    }
    column, _, value = options.where.partition("=")
    runs = read_runs(
        path,
        columns={kind: name for kind, name in named.items() if name},
        drop_highest=options.drop_highest,
        where=(column, value) if options.where else None,
    )
    if options.form in ("isoflop", "envelope"):
        answer = _fit_frontier(runs, options)
    elif options.form == "data-constrained":
        answer = _fit_repeated(runs, options)
    else:
        answer = _fit_loss(runs, options)
    answer = {"form": options.form, "runs": len(runs), "left_out": list(runs.dropped)} | answer
    if options.json:
        told = {name: estimate.document() for name, estimate in answer["estimates"].items()}
        print(json.dumps(answer | {"estimates": told}, indent=2))
    else:
        _print(answer)
    for written in (options.out, options.picture):
        if written is not None:
            print(f"written: {written}", file=sys.stderr)
    return 0


def _check(options: _Options) -> None:
    if options.absolute and options.form != "chinchilla":
        raise ValueError(f"--absolute is for --form chinchilla, not {options.form}.")
    if options.where and "=" not in options.where:
        raise ValueError(f"--where={options.where!r} must be COLUMN=VALUE.")
    if options.picture is not None and options.picture.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture={options.picture} must end in .png, .svg or .pdf.")
    _points(options)


def _points(options: _Options) -> list[tuple[float, float]]:
    points = []
    for text in options.predict:
        try:
            params, tokens = (float(part) for part in text.split(":"))
        except ValueError:
            params = tokens = 0.0
        if not (0 < params < float("inf") and 0 < tokens < float("inf")):
            raise ValueError(f"--predict={text!r} must be PARAMS:TOKENS, both positive.")
        points.append((params, tokens))
    return points


def _fit_loss(runs: "Runs", options: _Options) -> dict[str, Any]:
    from llama_jax.scaling.estimates import constants, estimate
    from llama_jax.scaling.fit import ABSOLUTE_DELTA, CHINCHILLA, OVERTRAIN, Objective, fit_loss

    objective = OVERTRAIN if options.form == "overtrain" else CHINCHILLA
    if options.absolute:
        objective = Objective(delta=ABSOLUTE_DELTA)
    fit = fit_loss(runs, objective, resamples=_resamples(options, 4000), seed=options.seed)
    _write_law(fit.law, options)
    if options.picture is not None:
        from llama_jax.scaling.pictures import plot_fit

        plot_fit(runs, fit, options.picture)
    law, alphas, betas = fit.law, fit.resamples[:, 3], fit.resamples[:, 4]
    estimates = constants(fit)
    estimates["params_exponent"] = estimate(law.params_exponent, betas / (alphas + betas))
    for params, tokens in _points(options):
        name = f"loss({params:.4g}, {tokens:.4g})"
        estimates[name] = estimate(law.loss(params, tokens), fit.losses(params, tokens))
    return _account(estimates, fit)


def _write_law(law: "Law", options: _Options) -> None:
    from llama_jax.atomic import write_atomically
    from llama_jax.recipe import to_json

    if options.out is not None:
        write_atomically(options.out, to_json(law))


def _fit_repeated(runs: "Runs", options: _Options) -> dict[str, Any]:
    from llama_jax.scaling.estimates import estimate, estimate_limit
    from llama_jax.scaling.fit_repeated import fit_repeated

    fit = fit_repeated(runs, resamples=_resamples(options, 1000), seed=options.seed)
    _write_law(fit.law, options)
    law, draws = fit.law, fit.resamples
    values = (law.A, law.B, law.E, law.alpha, fit.token_decay, fit.param_decay)
    names = ("A", "B", "E", "alpha = beta", "R_D*", "R_N*")
    estimates = {
        name: (estimate_limit if name == "E" else estimate)(value, draws[:, i])
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    }
    return _account(estimates, fit) | {"runs_that_repeat": fit.num_repeated}


def _account(estimates: dict[str, "Estimate"], fit: "Fit | RepeatedFit") -> dict[str, Any]:
    import numpy as np

    return {
        "objective": fit.objective,
        "rms_residual": float(np.sqrt(np.mean(fit.residuals**2))),
        "estimates": estimates,
        "note": fit.law.about.note,
    }


def _fit_frontier(runs: "Runs", options: _Options) -> dict[str, Any]:
    from llama_jax.scaling.estimates import Estimate, estimate
    from llama_jax.scaling.frontier import fit_envelope, fit_isoflop

    fit: FrontierFit
    if options.form == "isoflop":
        fit = fit_isoflop(runs, resamples=_resamples(options, 4000), seed=options.seed)
    else:
        fit = fit_envelope(runs)
    _write_law(fit.law, options)
    if options.picture is not None:
        from llama_jax.scaling.pictures import plot_frontier

        plot_frontier(runs, fit, options.picture)
    return {
        "estimates": {
            "params_exponent": estimate(fit.law.exponent, fit.exponents),
            "coefficient": Estimate(fit.law.coefficient),
        },
        "best_sizes": len(fit.points),
        "budgets_left_out": list(fit.left_out),
    }


def _resamples(options: _Options, default: int) -> int:
    return default if options.resamples is None else options.resamples


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{answer['form']}, {answer['runs']} runs"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("value", "standard error", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, estimate in answer["estimates"].items():
        table.add_row(name, *estimate.cells())
    console = Console(highlight=False)
    console.print(table)
    if "objective" in answer:
        off = answer["rms_residual"]
        console.print(f"objective {answer['objective']:.8g} (a sum), residuals {off:.2%} rms")
    if answer.get("note"):
        console.print(answer["note"])
    for line in (*answer["left_out"], *answer.get("budgets_left_out", ())):
        console.print(f"[dim]left out: {line}[/]")
