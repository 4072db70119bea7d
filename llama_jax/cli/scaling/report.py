"""One page about a table of runs: what was fitted, how well, and what it says of larger ones."""

import base64
import dataclasses
import html
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.frontier import FrontierFit
    from llama_jax.scaling.intervals import Interval
    from llama_jax.scaling.runs import Runs

USAGE = """usage: llama-jax scaling report RUNS.csv --out PAGE.html [--drop-highest N]
           [--loss-column NAME]

Writes one self-contained HTML page: the fitted law with its intervals, pictures, the best size for
larger computes, what was left out, and every run with its residual.

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
    drop_highest: int = 0
    """Runs of highest loss that are left out."""
    loss_column: str = ""
    """Column of losses."""
    resamples: int = 4000
    """Bootstrap resamples."""
    seed: int = 0
    """Of the resamples."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling report`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.scaling.fit import fit_loss
    from llama_jax.scaling.runs import read_runs, split_held_out

    prog = f"llama-jax scaling report {argv[0]}"
    description = USAGE.partition("\n\n")[2]
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    if options.out.exists():
        raise ValueError(f"--out={options.out} exists; name a new file.")
    columns = {"loss": options.loss_column} if options.loss_column else None
    path = Path(argv[0])
    kept, aside = split_held_out(path) or (None, None)
    runs = read_runs(path, columns=columns, drop_highest=options.drop_highest, where=kept)
    fit = fit_loss(runs, resamples=options.resamples, seed=options.seed)
    held_out = read_runs(path, columns=columns, where=aside) if aside else None
    page = _page(argv[0], runs, fit, held_out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("x") as file:
        file.write(page)
    print(f"written: {options.out}", file=sys.stderr)
    return 0


def _page(name: str, runs: "Runs", fit: "Fit", held_out: "Runs | None") -> str:
    from llama_jax.scaling.pictures import plot_fit, plot_frontier, plot_ladder

    told = (
        f"{html.escape(name)}: L(N, D) = E + A/N<sup>alpha</sup> + B/D<sup>beta</sup>, Huber loss "
        f"on the log loss (Hoffmann et al. 2022). Objective {fit.objective:.6g}, a sum. Compute is "
        "6ND; parameters are counted as in the table."
    )
    parts = [
        f"<h1>Scaling law of {len(runs)} runs</h1>",
        f"<p>{told}</p>",
        _constants(fit),
        f"<p>{html.escape(fit.law.about.note)}</p>",
        _picture(lambda path: plot_fit(runs, fit, path)),
    ]
    if held_out is not None:
        parts += [
            "<h2>Predicted and measured</h2>",
            "<p>Runs that are held out of the fit.</p>",
            _picture(lambda path: plot_ladder(runs, fit, held_out, path)),
            _checks(held_out, fit),
        ]
    parts += [
        "<h2>Best size for the compute</h2>",
        _frontier(runs, fit),
    ]
    profile = _isoflop(runs)
    if not isinstance(profile, str):
        law = profile.law
        parts += [
            "<h2>Losses at equal compute</h2>",
            f"<p>Parabolas give N = {law.coefficient:.4g} C<sup>{law.exponent:.4f}</sup>.</p>",
            _picture(lambda path: plot_frontier(runs, profile, path)),
            _list(profile.left_out),
        ]
    else:
        parts.append(f"<p><small>No isoFLOP profiles: {html.escape(profile)}</small></p>")
    if runs.dropped:
        parts += ["<h2>Left out</h2>", _list(runs.dropped)]
    parts += ["<h2>Runs</h2>", _runs_table(runs, fit)]
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Scaling law</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _isoflop(runs: "Runs") -> "FrontierFit | str":
    from llama_jax.scaling.frontier import fit_isoflop

    try:
        return fit_isoflop(runs, resamples=0)
    except ValueError as refusal:
        return str(refusal)


def _constants(fit: "Fit") -> str:
    from llama_jax.scaling.estimates import constants

    rows = [(name, *estimate.cells()) for name, estimate in constants(fit).items()]
    return _table(("", "value", "standard error", "95% interval"), rows)


def _checks(held_out: "Runs", fit: "Fit") -> str:
    from llama_jax.scaling.fit import check_predictions

    checks = check_predictions(fit, held_out)
    rows = [
        (
            f"{N:,.0f}",
            f"{D:,.0f}",
            f"{check.predicted:.4f}",
            "" if (ends := check.interval_95) is None else f"{ends[0]:.4f} to {ends[1]:.4f}",
            f"{check.measured:.4f}",
            f"{check.error:+.2%}",
        )
        for N, D, check in zip(held_out.params, held_out.tokens, checks, strict=True)
    ]
    names = ("parameters", "tokens", "predicted", "95%", "measured", "predicted over measured")
    return _table(names, rows)


def _frontier(runs: "Runs", fit: "Fit") -> str:
    from llama_jax.scaling.intervals import by_constants
    from llama_jax.units import human_count

    law = fit.law
    most = float((6 * runs.params * runs.tokens).max())
    rows = []
    for scale in _BUDGETS_BEYOND:
        flops = most * scale
        best = law.optimum(flops)
        ends = by_constants(
            law, lambda law, flops=flops: {"params": law.optimum(flops).params}
        ).get("params")
        rows.append(
            (
                f"{flops:.3g}",
                human_count(best.params),
                "" if ends is None else _tell(ends),
                human_count(best.tokens),
                f"{law.loss(*best):.4f}",
                ", ".join(law.about.extrapolates(best)),
            )
        )
    return _table(("FLOPs", "parameters", "95%", "tokens", "loss", "extrapolates"), rows)


def _tell(ends: "Interval") -> str:
    from llama_jax.units import human_count

    if ends.high == math.inf:
        return "any"
    return f"{human_count(ends.low)} to {human_count(ends.high)}"


def _runs_table(runs: "Runs", fit: "Fit") -> str:
    rows = [
        (f"{N:,.0f}", f"{D:,.0f}", f"{loss:.4f}", f"{residual:+.2%}")
        for N, D, loss, residual in zip(
            runs.params, runs.tokens, runs.loss, fit.residuals, strict=True
        )
    ]
    return _table(("parameters", "tokens", "loss", "measured over fitted"), rows)


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
