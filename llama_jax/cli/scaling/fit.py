"""Fit a scaling law to a table of runs."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_jax.cli.scaling.forms import Form, FormFit, Point, check_form, fit_form

if TYPE_CHECKING:
    from llama_jax.scaling.checks import Check
    from llama_jax.scaling.estimates import Estimate
    from llama_jax.scaling.runs import Runs

_COLUMNS = ("params", "tokens", "loss", "flops", "unique_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `scaling fit`."""

    form: Form = "chinchilla"
    """What is fitted."""
    drop_highest: int = 0
    """Runs of highest loss that are left out, such as those that had hardly begun."""
    resamples: int | None = None
    """Bootstrap resamples; 4,000 by default, 1,000 for data-constrained; 0 leaves intervals out.
    An envelope has none."""
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
    """Column of unique tokens; data-constrained alone."""
    where: str = ""
    """COLUMN=VALUE: only rows that have it."""
    predict: tuple[str, ...] = ()
    """PARAMS:TOKENS of runs whose loss to predict, as in 7e9:1e12; with data-constrained
    PARAMS:TOKENS:UNIQUE too. Not for isoflop and envelope, which have no loss."""
    out: Path | None = None
    """File to write the law to, for `plan --law`. That of isoflop and envelope tells the best size
    without a loss, that of data-constrained what repeated tokens are worth too."""
    picture: Path | None = None
    """File to draw the fit into, .png, .svg or .pdf."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str], description: str) -> int:
    """Runs `llama-jax scaling fit`."""
    import tyro

    prog = f"llama-jax scaling fit {argv[0]}"
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    points = _check(options)
    runs, held_out = _read(Path(argv[0]), options)
    fit = fit_form(
        options.form,
        runs,
        resamples=options.resamples,
        seed=options.seed,
        absolute=options.absolute,
    )
    _write(fit, options)
    answer = _answer(fit, runs, held_out, points, options)
    if options.json:
        print(json.dumps(_document(answer), indent=2))
    else:
        _print(answer)
    for written in (options.out, options.picture):
        if written is not None:
            print(f"written: {written}", file=sys.stderr)
    return 0


def _check(options: _Options) -> list[tuple[str, Point]]:
    """The runs to predict, by name; refuses what cannot be done before anything is fitted."""
    check_form(
        options.form,
        resamples=options.resamples,
        absolute=options.absolute,
        predict=options.predict,
    )
    if options.unique_tokens_column and options.form != "data-constrained":
        raise ValueError(
            f"--unique-tokens-column is for --form data-constrained, not {options.form}."
        )
    if options.where and "=" not in options.where:
        raise ValueError(f"--where={options.where!r} must be COLUMN=VALUE.")
    if options.picture is not None and options.picture.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture={options.picture} must end in .png, .svg or .pdf.")
    for name in ("out", "picture"):
        _check_file(name, getattr(options, name))
    return [_point(text, repeats=options.form == "data-constrained") for text in options.predict]


def _check_file(name: str, path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"--{name}={path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise ValueError(f"--{name}={path}: there is no folder {path.parent}; make it first.")


def _point(text: str, *, repeats: bool) -> tuple[str, Point]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in ((2, 3) if repeats else (2,)) or not all(
        0 < number < float("inf") for number in numbers
    ):
        unique = " or PARAMS:TOKENS:UNIQUE" if repeats else ""
        raise ValueError(f"--predict={text!r} must be PARAMS:TOKENS{unique}, all positive.")
    name = f"loss({', '.join(f'{number:.4g}' for number in numbers)})"
    return name, (numbers[0], numbers[1], numbers[-1])


def _read(path: Path, options: _Options) -> "tuple[Runs, Runs | None]":
    """The runs to fit, and those that the table holds out, if it does."""
    from llama_jax.scaling.runs import read_runs, says_held_out

    named = {kind: getattr(options, f"{kind}_column") for kind in _COLUMNS}
    columns = {kind: name for kind, name in named.items() if name}
    column, _, value = options.where.partition("=")
    where = (column, value) if options.where else None
    if column == "held_out" or not says_held_out(path):
        runs = read_runs(path, columns=columns, drop_highest=options.drop_highest, where=where)
        return runs, None
    runs = read_runs(
        path, columns=columns, drop_highest=options.drop_highest, where=where, held_out=False
    )
    return runs, read_runs(path, columns=columns, where=where, held_out=True)


def _write(fit: FormFit, options: _Options) -> None:
    from llama_jax.atomic import write_atomically
    from llama_jax.recipe import to_json

    if options.out is not None:
        write_atomically(options.out, to_json(fit.law))
    if options.picture is not None:
        fit.draw(options.picture)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    form: str
    runs: "Runs"
    fit: FormFit
    estimates: "dict[str, Estimate]"
    held_out: int
    checks: "list[Check]"


def _answer(
    fit: FormFit,
    runs: "Runs",
    held_out: "Runs | None",
    points: list[tuple[str, Point]],
    options: _Options,
) -> _Answer:
    from llama_jax.scaling.checks import check_predictions

    predicted = {name: fit.predict(at) for name, at in points if fit.predict is not None}
    checks = []
    if fit.loss_fit is not None and held_out is not None:
        checks = check_predictions(fit.loss_fit, runs, held_out)
    return _Answer(
        form=options.form,
        runs=runs,
        fit=fit,
        estimates=fit.estimates | predicted,
        held_out=0 if held_out is None else len(held_out),
        checks=checks,
    )


def _document(answer: _Answer) -> dict[str, Any]:
    from llama_jax.scaling.replicates import seed_noise

    noise = seed_noise(answer.runs)
    return {
        "form": answer.form,
        "runs": len(answer.runs),
        "left_out": list(answer.runs.dropped),
        "held_out": answer.held_out,
        "estimates": {name: value.document() for name, value in answer.estimates.items()},
        **answer.fit.details,
        "notes": list(answer.fit.notes),
        "budgets_left_out": list(answer.fit.left_out),
        "seed_noise": None if noise is None else noise.document(),
        "predictions": [check.document() for check in answer.checks],
    }


def _print(answer: _Answer) -> None:
    from rich.console import Console
    from rich.table import Table

    from llama_jax.scaling.replicates import seed_noise

    title = f"{answer.form}, {len(answer.runs)} runs"
    if answer.held_out:
        title += f"; {answer.held_out} that the table holds out are not fitted"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("value", "standard error", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, estimate in answer.estimates.items():
        table.add_row(name, *estimate.cells())
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    details = answer.fit.details
    if "objective" in details:
        off = details["rms_residual"]
        console.print(f"objective {details['objective']:.8g} (a sum), residuals {off:.2%} rms")
    for line in answer.fit.notes:
        console.print(line)
    if (noise := seed_noise(answer.runs)) is not None:
        console.print(str(noise))
    for check in answer.checks:
        for line in check.lines(f"held out, {check.prediction}"):
            console.print(line)
    for line in (*answer.runs.dropped, *answer.fit.left_out):
        console.print(f"[dim]left out: {line}[/]")
