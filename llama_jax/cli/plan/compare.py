"""Put the runs of LLaMA, Chinchilla, Gopher and GPT-3 beside a law."""

import dataclasses
import json
import math
import sys
from typing import Any

USAGE = """usage: llama-jax plan compare [--law NAME|FILE] [--json]

Says of LLaMA-1, 2 and 3, Chinchilla, Gopher and GPT-3 what a law would have chosen for the same
compute, how much loss the difference costs, and from how many served tokens on it pays.

examples:
  llama-jax plan compare
  llama-jax plan compare --law chinchilla-3"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `plan compare`."""

    law: str = "besiroglu"
    """A law with a loss, or a file that `scaling fit` wrote."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax plan compare`."""
    if argv in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    import tyro

    from llama_jax.cli.laws import read_laws
    from llama_jax.scaling.laws import LossLaw
    from llama_jax.scaling.real_runs import compare

    description = USAGE.partition("\n\n")[2]
    options = tyro.cli(_Options, prog="llama-jax plan compare", description=description, args=argv)
    (law,) = read_laws([options.law])
    if not isinstance(law, LossLaw):
        raise ValueError(f"--law={options.law!r} is a frontier without a loss; take besiroglu.")
    comparisons = compare(law)
    if options.json:
        print(json.dumps([_document(comparison) for comparison in comparisons], indent=2))
        return 0
    _print(options.law, comparisons)
    print("losses are the law's own: the runs' data and tokenizers differ", file=sys.stderr)
    return 0


def _document(comparison: Any) -> dict[str, Any]:
    at, best = comparison.run.at, comparison.best
    finite = {
        name: value if 0 <= (value := getattr(comparison, name)) < math.inf else None
        for name in ("break_even", "justified_by")
    }
    return {
        "name": comparison.run.name,
        "source": comparison.run.source,
        "params": at.params,
        "tokens": at.tokens,
        "train_flops": at.flops,
        "best_params": best.params,
        "best_tokens": best.tokens,
        "loss_nats_per_token": comparison.loss,
        "nats_above_best": comparison.lost,
        "verdict": comparison.verdict,
        "served_tokens_break_even": finite["break_even"],
        "served_tokens_that_justify": finite["justified_by"],
        "extrapolates": comparison.extrapolates,
    }


def _print(law: str, comparisons: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from llama_jax.units import human_count

    table = Table(
        title=f"Real runs by {law}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("run", no_wrap=True)
    for name in ("tokens", "ratio", "best size", "lost", "trained", "pays from", "best at"):
        table.add_column(name, justify="right", no_wrap=True)
    for comparison in comparisons:
        at = comparison.run.at
        table.add_row(
            comparison.run.name + "*" * bool(comparison.extrapolates),
            human_count(at.tokens),
            f"{at.tokens / at.params:,.0f}",
            human_count(comparison.best.params),
            f"{comparison.lost:.3f}",
            comparison.verdict,
            *(
                human_count(value) if 0 <= value < math.inf else "never"
                for value in (comparison.break_even, comparison.justified_by)
            ),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "[dim]* outside the data of the law. lost: nats per token above the best size at the same "
        "FLOPs (6ND). pays from, best at: tokens served from which the run costs less than the "
        "compute-optimal model of its loss, and at which nothing of its loss costs less.[/]"
    )
