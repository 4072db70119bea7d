"""Cells of tables: numbers, their intervals, and the star of what extrapolates."""

import math
from collections.abc import Callable
from typing import Any

from llama_jax.scaling.intervals import Interval
from llama_jax.units import human_count

BEYOND = "*"
RATIO = "D/N"
LEGEND = f"{BEYOND} outside the data of its law, or made from such a number: extrapolated"


class Marks:
    """Stars numbers, and knows whether a page needs their legend."""

    def __init__(self) -> None:
        self.used = False

    def star(self, text: str, beyond: object) -> str:
        """The text, starred where something is beyond its law's data."""
        if not beyond or not text:
            return text
        self.used = True
        return text + BEYOND


def flops(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def loss(value: float) -> str:
    """Nats per token."""
    return f"{value:.4f}"


def ratio(tokens: float, params: float) -> str:
    """Tokens a parameter."""
    value = tokens / params
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def usd(value: float) -> str:
    """Dollars, shortly."""
    return f"${human_count(value)}"


# How both ends of an interval are told, by what it is of.
_ENDS: dict[str, Callable[[float], str]] = {
    "params": human_count,
    "tokens": human_count,
    "flops": lambda value: f"{value:.2g}",
    "loss": lambda value: f"{value:.3f}",
}


def interval(ends: Interval | None, of: str) -> str:
    """Both ends; empty where there is no interval."""
    if ends is None:
        return ""
    if not ends.high < math.inf:
        return "any"
    tell = _ENDS[of]
    return f"{tell(ends.low)}-{tell(ends.high)}"


def over(text: str, below: str) -> str:
    """A number with its interval in a line below."""
    return f"{text}\n[dim]{below}[/]" if below else text


def level(share: float) -> str:
    """Of intervals: "95%"; "none" where a law gives none."""
    return f"{share:.0%}" if share else "none"


def table(first: str, columns: list[str]) -> Any:
    """An empty table; every column but the first is of numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, collapse_padding=True)
    made.add_column(first, no_wrap=True)
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def console() -> Any:
    """Prints on stdout; what is piped is not cut to the width of a screen."""
    import os
    import sys

    from rich.console import Console

    cut = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if cut else 120)


def show(console: Any, build: Callable[[frozenset[str]], Any]) -> None:
    """Prints a table without losing a digit of it.

    Args:
        console: Of `console`.
        build: The table without the named columns; tokens a parameter go first.
    """
    from rich.measure import Measurement

    screen = console.width
    for left_out in (frozenset(), frozenset({RATIO})):
        table = build(left_out)
        wide = console.options.update(max_width=1000)
        needed = Measurement.get(console, wide, table).maximum
        if needed <= screen:
            break
    console.width = max(needed, screen)
    console.print(table)
    console.width = screen
