"""One page about a table of runs: what was fitted, how well, and what it says of larger ones."""

import base64
import dataclasses
import html
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_jax.cli.scaling.forms import Form, FormFit, check_form, fit_form

if TYPE_CHECKING:
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.intervals import Interval
    from llama_jax.scaling.laws import Law
    from llama_jax.scaling.runs import Runs

USAGE = """usage: llama-jax scaling report RUNS.csv --out PAGE.html [--form FORM] [--drop-highest N]
           [--loss-column NAME] [--json]

Writes one self-contained HTML page: the fitted law with its intervals, pictures, the best size for
larger computes, what seeds differ by, what was left out, and every run with its residual. Of a
ladder's runs.csv, what it holds out is not fitted but predicted.

example: llama-jax scaling report ladder/runs.csv --out ladder/report.html"""

_BUDGETS_BEYOND = (1, 10, 100, 1000)
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:60rem;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;
text-align:right;border-bottom:1px solid #e5e7eb}td:first-child,th:first-child{text-align:left}
img{max-width:100%}small{color:#6b7280}"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling report`."""

    out: Path
    """Page to write; it must not exist."""
    form: Form = "chinchilla"
    """What is fitted."""
    drop_highest: int = 0
    """Runs of highest loss that are left out."""
    loss_column: str = ""
    """Column of losses."""
    resamples: int | None = None
    """Bootstrap resamples; 4,000 by default, 1,000 for data-constrained, none for envelope."""
    seed: int = 0
    """Of the resamples."""
    json: bool = False
    """Print the fitted constants and the page's name as one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling report`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.scaling.runs import read_runs, says_held_out

    prog = f"llama-jax scaling report {argv[0]}"
    description = USAGE.partition("\n\n")[2]
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    if options.out.exists():
        raise ValueError(f"--out={options.out} exists; name a new file.")
    check_form(options.form, resamples=options.resamples)
    columns = {"loss": options.loss_column} if options.loss_column else None
    path = Path(argv[0])
    splits = says_held_out(path)
    runs = read_runs(
        path,
        columns=columns,
        drop_highest=options.drop_highest,
        held_out=False if splits else None,
    )
    fit = fit_form(options.form, runs, resamples=options.resamples, seed=options.seed)
    held_out = read_runs(path, columns=columns, held_out=True) if splits else None
    page = _page(argv[0], options.form, runs, fit, held_out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("x") as file:
        file.write(page)
    print(f"written: {options.out}", file=sys.stderr)
    if options.json:
        constants = {name: told.document() for name, told in fit.estimates.items()}
        answer = {
            "page": str(options.out),
            "runs": len(runs),
            "left_out": list(runs.dropped),
            "law": constants,
            **fit.details,
        }
        print(json.dumps(answer))
    return 0


def _page(name: str, form: Form, runs: "Runs", fit: FormFit, held_out: "Runs | None") -> str:
    told = f"{name}: {fit.formula}. Compute is 6ND; parameters are counted as in the table."
    if "objective" in fit.details:
        told += f" Objective {fit.details['objective']:.6g}, a sum."
    parts = [
        f"<h1>Scaling law of {len(runs)} runs</h1>",
        f"<p>{html.escape(told)}</p>",
        _table(
            ("", "value", "standard error", "95% interval"),
            [(name, *estimate.cells()) for name, estimate in fit.estimates.items()],
        ),
        *(f"<p>{html.escape(note)}.</p>" for note in fit.notes),
        _picture(fit.draw),
    ]
    if held_out is not None:
        parts += _held_out(runs, fit.loss_fit, held_out)
    parts += ["<h2>Best size for the compute</h2>", _frontier(runs, fit)]
    if form == "chinchilla":
        parts += _profiles(runs)
    parts += _seeds(runs)
    if left_out := (*runs.dropped, *fit.left_out):
        parts += ["<h2>Left out</h2>", _list(left_out)]
    parts += ["<h2>Runs</h2>", _runs_table(runs, fit)]
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Scaling law</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _profiles(runs: "Runs") -> list[str]:
    """What parabolas say of the same runs, beside a law of the loss."""
    try:
        profile = fit_form("isoflop", runs, resamples=0)
    except ValueError as refusal:
        return [f"<p><small>No isoFLOP profiles: {html.escape(str(refusal))}</small></p>"]
    said = profile.estimates
    power = f"{said['coefficient'].value:.4g} C<sup>{said['params_exponent'].value:.4f}</sup>"
    return [
        "<h2>Losses at equal compute</h2>",
        f"<p>Parabolas give N = {power}.</p>",
        _picture(profile.draw),
        _list(profile.left_out),
    ]


def _held_out(runs: "Runs", fit: "Fit | None", held_out: "Runs") -> list[str]:
    from llama_jax.scaling.pictures import plot_ladder

    heading = "<h2>Predicted and measured</h2>"
    if fit is None:
        told = f"{len(held_out)} runs are held out of the fit; this form says nothing of them."
        return [heading, f"<p>{told}</p>"]
    told = (
        "Runs that are held out of the fit. Beside the law stands what needs none: the loss of the "
        "nearest run that was fitted, and of the best one."
    )
    return [
        heading,
        f"<p>{told}</p>",
        _picture(lambda path: plot_ladder(runs, fit, held_out, path)),
        _checks(runs, fit, held_out),
    ]


def _checks(runs: "Runs", fit: "Fit", held_out: "Runs") -> str:
    from llama_jax.scaling.checks import check_predictions

    rows = []
    for check in check_predictions(fit, runs, held_out):
        said, ends = check.prediction, check.prediction.interval_95
        rows.append(
            (
                f"{said.params:,.0f}",
                f"{said.tokens:,.0f}",
                f"{check.measured:.4f}",
                f"{said.loss:.4f}",
                "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}",
                f"{check.error:+.2%}",
                f"{said.nearest.loss:.4f}",
                f"{check.nearest_error:+.2%}",
                f"{check.best_error:+.2%}",
            )
        )
    names = ("parameters", "tokens", "measured", "predicted", "95%", "off", "nearest run", "off")
    return _table((*names, "best run off"), rows)


def _frontier(runs: "Runs", fit: FormFit) -> str:
    from llama_jax.scaling.intervals import by_constants, by_exponent
    from llama_jax.scaling.laws import LossLaw
    from llama_jax.units import human_count

    law = fit.law
    most = float((6 * runs.params * runs.tokens).max())
    rows = []
    for scale in _BUDGETS_BEYOND:
        flops = most * scale
        best = law.optimum(flops)

        def size(law: "Law", flops: float = flops) -> dict[str, float]:
            return {"": law.optimum(flops).params}

        known = by_constants(law, size) if isinstance(law, LossLaw) else by_exponent(law, size)
        ends = known.get("")
        rows.append(
            (
                f"{flops:.3g}",
                human_count(best.params),
                "" if ends is None else _tell(ends),
                human_count(best.tokens),
                f"{law.loss(*best):.4f}" if isinstance(law, LossLaw) else "",
                ", ".join(law.about.extrapolates(best)),
            )
        )
    return _table(("FLOPs", "parameters", "95%", "tokens", "loss", "extrapolates"), rows)


def _tell(ends: "Interval") -> str:
    from llama_jax.units import human_count

    if ends.high == math.inf:
        return "any"
    return f"{human_count(ends.low)} to {human_count(ends.high)}"


def _seeds(runs: "Runs") -> list[str]:
    from llama_jax.scaling.replicates import seed_noise

    if (noise := seed_noise(runs)) is None:
        return []
    rows = [
        (f"{cell.params:,.0f}", f"{cell.tokens:,.0f}", str(cell.runs), f"{cell.deviation:.4f}")
        for cell in noise.cells
    ]
    return [
        "<h2>Seeds</h2>",
        f"<p>{html.escape(str(noise).capitalize())}.</p>",
        _table(("parameters", "tokens", "runs", "standard deviation"), rows),
    ]


def _runs_table(runs: "Runs", fit: FormFit) -> str:
    names = ("parameters", "tokens", "loss")
    columns = zip(runs.params, runs.tokens, runs.loss, strict=True)
    rows = [(f"{N:,.0f}", f"{D:,.0f}", f"{loss:.4f}") for N, D, loss in columns]
    if fit.residuals is None:
        return _table(names, rows)
    off = [f"{residual:+.2%}" for residual in fit.residuals]
    rows = [(*row, told) for row, told in zip(rows, off, strict=True)]
    return _table((*names, "measured over fitted"), rows)


def _picture(draw: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li><small>{html.escape(line)}</small></li>" for line in lines)
    return f"<ul>{items}</ul>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
