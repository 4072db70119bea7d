"""Put a plan beside the runs of LLaMA, Chinchilla, Gopher and GPT-3, under each law."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llama_jax.cli.plan import marks
from llama_jax.cli.plan.marks import LEGEND, Marks
from llama_jax.cli.plan.options import Budget
from llama_jax.units import human_count

if TYPE_CHECKING:
    from llama_jax.scaling.intervals import Interval
    from llama_jax.scaling.laws import Law
    from llama_jax.scaling.plan import Plan
    from llama_jax.scaling.real_runs import Comparison

USAGE = """usage: llama-jax plan compare [--law NAME|FILE ...] [--json]
       llama-jax plan compare
           (--flops X | --params X | --target-loss X | --usd X | --chips POD --days X)
           [--serve-tokens X] [--unique-tokens X] [--law NAME|FILE ...] [--json]

Says of LLaMA-1, 2 and 3, Chinchilla, Gopher and GPT-3 what each law would have chosen for the same
compute, how much loss the difference costs, and from how many served tokens on it pays. With a
budget, a size or a loss, what each law plans for it stands beside them, judged by every other law.

examples:
  llama-jax plan compare
  llama-jax plan compare --law chinchilla-3
  llama-jax plan compare --flops 1e23 --serve-tokens 1e13

`llama-jax plan compare --law besiroglu --help` lists every option."""
_RUN = ["tokens", marks.RATIO]
_NEVER = "never"
Judged = Sequence[tuple["Law", "Sequence[Comparison]"]]


def main(argv: list[str]) -> int:
    """Runs `llama-jax plan compare`."""
    if argv in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    import tyro

    from llama_jax.cli.laws import read_laws
    from llama_jax.scaling.published import DEFAULT_LAWS

    description = USAGE.partition("\n\n")[2]
    options = tyro.cli(Budget, prog="llama-jax plan compare", description=description, args=argv)
    plan = _plan(options)
    laws = read_laws(options.law or DEFAULT_LAWS)
    judged = [(law, _judge(law, plan)) for law in laws]
    if all(comparison.too_far for _, comparisons in judged for comparison in comparisons):
        from llama_jax.scaling.plan import too_far

        (law, (first, *_)), *_ = judged
        raise ValueError(f"--law={law.about.name} {too_far(law, first.run.at)}.")
    if options.json:
        print(json.dumps(_document(judged), indent=2))
        return 0
    _print(judged, plan)
    print("losses are the laws' own: the runs' data and tokenizers differ", file=sys.stderr)
    return 0


def _plan(options: Budget) -> "Plan | None":
    """What is planned; None where neither budget, size nor loss is given."""
    if not options.goals:
        asked = [name for name in ("serve_tokens", "unique_tokens") if getattr(options, name)]
        if asked or options.chips:
            told = (asked or ["chips"])[0].replace("_", "-")
            raise ValueError(
                f"--{told} is of a plan; give one of --flops, --params, --target-loss, --usd, or "
                "--days with --chips, or leave it out."
            )
        return None
    from llama_jax.cli.plan.answer import make_answer

    return make_answer(options).plan


def _judge(law: "Law", plan: "Plan | None") -> "list[Comparison]":
    from llama_jax.scaling.real_runs import compare, planned_runs

    planned = compare(law, planned_runs(plan), plan.request.limit_of(law)) if plan else ()
    return [*planned, *compare(law)]


def _document(judged: "Judged") -> dict[str, Any]:
    return {
        "laws": [
            {
                "law": law.about.name,
                "about": dataclasses.asdict(law.about),
                "runs": [_run(comparison) for comparison in comparisons],
            }
            for law, comparisons in judged
        ]
    }


def _run(comparison: "Comparison") -> dict[str, Any]:
    at, best = comparison.run.at, comparison.best
    asked = {
        "name": comparison.run.name,
        "source": comparison.run.source,
        "params": at.params,
        "tokens": at.tokens,
        "train_flops": at.flops,
        "extrapolates": comparison.extrapolates,
        "too_far": comparison.too_far,
    }
    if comparison.too_far:
        return asked
    return asked | {
        "best_params": best.params,
        "best_params_interval": _ends(comparison, "best_params"),
        "best_tokens": best.tokens,
        "loss_nats_per_token": comparison.loss,
        "nats_above_best": comparison.lost,
        "nats_above_best_interval": _ends(comparison, "lost"),
        "verdict": comparison.verdict,
        "served_tokens_break_even": _finite(comparison.break_even),
        "served_tokens_break_even_interval": _ends(comparison, "break_even"),
        "served_tokens_that_justify": _finite(comparison.justified_by),
        "served_tokens_that_justify_interval": _ends(comparison, "justified_by"),
    }


def _finite(value: float | None) -> float | None:
    """None for never."""
    return value if value is not None and 0 <= value < math.inf else None


def _ends(comparison: "Comparison", name: str) -> dict[str, float | None] | None:
    ends = comparison.intervals.get(name)
    if ends is None:
        return None
    return {"low": _finite(ends.low), "high": _finite(ends.high), "level": ends.level}


def _print(judged: "Judged", plan: "Plan | None") -> None:
    from llama_jax.scaling.intervals import level
    from llama_jax.scaling.laws import LossLaw

    console, stars = marks.console(), Marks()
    for law, comparisons in judged:
        if isinstance(law, LossLaw):
            told = f"intervals of {level(law):.0%}" if level(law) else "no interval is known"
            console.print(f"[bold]By {law.about.name}[/] ({told})")
            marks.show(console, lambda left_out, runs=comparisons: _table(runs, stars, left_out))
            console.print()
    frontiers = [(law, runs) for law, runs in judged if not isinstance(law, LossLaw)]
    if frontiers:
        console.print("[bold]Best size for the same compute, by laws without a loss[/]")
        marks.show(console, lambda left_out: _frontier_table(frontiers, stars, left_out))
        console.print()
    for line in _legend(judged, plan):
        console.print(f"[dim]{line}[/]")
    if stars.used:
        console.print(f"[dim]{LEGEND}[/]")


def _table(comparisons: "Sequence[Comparison]", stars: Marks, left_out: frozenset[str]) -> Any:
    of_run = [name for name in _RUN if name not in left_out]
    table = marks.table("run", [*of_run, "best size", "trained", "lost", "pays from", "best at"])
    for comparison in comparisons:
        beyond, ends = comparison.extrapolates, comparison.intervals
        cells = _run_cells(comparison, stars, left_out)
        if comparison.too_far:
            cells.append("too far")
        else:
            lost = stars.star(f"{comparison.lost:.3f}", beyond)
            cells += [
                _best_size(comparison, stars),
                stars.star(comparison.verdict, beyond),
                marks.over(lost, _range(ends.get("lost"), lambda nats: f"{nats:.3f}".lstrip("0"))),
            ]
            for name in ("break_even", "justified_by"):
                demand = stars.star(_demand(getattr(comparison, name)), beyond)
                cells.append(marks.over(demand, _range(ends.get(name), _demand)))
        table.add_row(*cells)
    return table


def _frontier_table(judged: "Judged", stars: Marks, left_out: frozenset[str]) -> Any:
    from llama_jax.scaling.intervals import level

    of_run = [name for name in _RUN if name not in left_out]
    laws = [f"{law.about.name}\ninterval: {marks.level(level(law))}" for law, _ in judged]
    table = marks.table("run", [*of_run, *laws])
    for comparisons in zip(*(runs for _, runs in judged), strict=True):
        cells = _run_cells(comparisons[0], stars, left_out)
        for comparison in comparisons:
            verdict = stars.star(comparison.verdict, comparison.extrapolates)
            size = _best_size(comparison, stars, f" {verdict}")
            cells.append("too far" if comparison.too_far else size)
        table.add_row(*cells)
    return table


def _run_cells(comparison: "Comparison", stars: Marks, left_out: frozenset[str]) -> list[str]:
    run, beyond = comparison.run, comparison.extrapolates
    at = run.at
    name = f"{run.name} {human_count(at.params)}" if run.planned else run.name
    return [
        stars.star(name, "params" in beyond),
        stars.star(human_count(at.tokens), "tokens" in beyond),
        *([] if marks.RATIO in left_out else [marks.ratio(at.tokens, at.params)]),
    ]


def _best_size(comparison: "Comparison", stars: Marks, verdict: str = "") -> str:
    size = stars.star(human_count(comparison.best.params), comparison.extrapolates)
    ends = comparison.intervals.get("best_params")
    return marks.over(size + verdict, _range(ends, _shortly))


def _range(ends: "Interval | None", tell: Callable[[float], str]) -> str:
    if ends is None:
        return ""
    low, high = tell(ends.low), tell(ends.high)
    if low == high and tell is _shortly:
        low, high = human_count(ends.low), human_count(ends.high)
    return "" if low == high == _NEVER else f"{low}-{high}"


def _shortly(value: float) -> str:
    return human_count(float(f"{value:.2g}"))


def _demand(tokens: float | None) -> str:
    return _NEVER if (found := _finite(tokens)) is None else _shortly(found)


def _legend(judged: "Judged", plan: "Plan | None") -> list[str]:
    explained = (
        "Best size: at the same FLOPs (6ND); lost: nats per token above it. Pays from, best at: "
        "tokens served from which the run costs less than the compute-optimal model of its loss, "
        "and at which nothing of its loss costs less (6ND and 2N a token served)."
    )
    lines = [explained]
    runs = [comparison for _, comparisons in judged for comparison in comparisons]
    if any(run.justified_by == 0 for run in runs):
        lines.append("Best at 0: the compute-optimal model itself, which nothing beats unserved.")
    if any(run.loss is not None and run.intervals and "lost" not in run.intervals for run in runs):
        lines.append(
            "Where only the frontier's exponent has an interval, the best size alone has one."
        )
    if any(run.too_far for run in runs):
        lines.append(
            "Too far: over 1,000 times above the law's data, or beyond those of a law that shows "
            "no limit of the loss."
        )
    if plan is not None:
        served = ", trained and served" if plan.request.serves else ""
        lines.append(f"By LAW: what that law plans{served}, before it is rounded to a shape.")
        if plan.request.unique_tokens:
            lines.append("Plans are judged on data that run out, the real runs on their own.")
    lines += [f"{law.about.name}: {law.about.note}." for law, _ in judged if law.about.note]
    return lines
