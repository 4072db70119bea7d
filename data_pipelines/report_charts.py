"""Pieces of a build's page: documents, tables of counts, columns. HTML and SVG, no script."""

from collections.abc import Iterable, Mapping, Sequence

from llama_jax.page import Row, folded, text
from llama_jax.plain_text import amount, percent


def example(name: str, excerpt: str) -> str:
    """A document: where it is, and how it begins."""
    shown = f'<div class="text" dir="auto">{text(excerpt)}</div>' if excerpt else ""
    return f'<div class="example"><bdi class="id">{text(name)}</bdi>{shown}</div>'


def counted(
    head: tuple[str, str],
    counts: Iterable[tuple[str, int]],
    paint: str,
    *,
    beside: tuple[str, Mapping[str, str]] | None = None,
) -> str:
    """A table of counts, largest first, with their shares of all; long tails are folded.

    Args:
        head: Of the labels and of the counts.
        counts: By label.
        paint: How bars are painted.
        beside: The head of one more column, and its cells by label.
    """
    more, cells = beside or ("", {})
    ordered = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    total = sum(count for _, count in ordered)
    most = max((count for _, count in ordered), default=0) or 1
    rows = [
        Row(
            label,
            (amount(count), percent(count, total), *([cells[label]] if beside else [])),
            (((count / most, paint),),),
        )
        for label, count in ordered
    ]
    return folded((*head, "share", *([more] if beside else [])), rows)


def columns(labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]], about: str) -> str:
    """Columns side by side, of several numbers on top of one another.

    Args:
        labels: Below the columns.
        series: How each is painted, and its numbers.
        about: What the picture shows, for those who do not see it.
    """
    totals = [sum(numbers) for numbers in zip(*(numbers for _, numbers in series), strict=True)]
    most = max(totals, default=0) or 1
    width, height = 360, 120
    step = width / max(len(labels), 6)
    drawn = []
    for at, (label, total) in enumerate(zip(labels, totals, strict=True)):
        x, top = at * step, 14.0 + height
        for paint, numbers in series:
            size = height * numbers[at] / most
            top -= size
            drawn.append(
                f'<rect class="{paint}" x="{x + 1:.1f}" y="{top:.1f}" width="{step - 2:.1f}" '
                f'height="{size:.1f}"/>'
            )
        middle = x + step / 2
        drawn.append(f'<text x="{middle:.1f}" y="{top - 3:.1f}">{_short(total)}</text>')
        drawn.append(f'<text class="soft" x="{middle:.1f}" y="{height + 26}">{text(label)}</text>')
    return (
        f'<svg class="columns" viewBox="0 0 {width} {height + 32}" role="img" '
        f'aria-label="{text(about)}">{"".join(drawn)}</svg>'
    )


def power_labels(first: int, last: int) -> list[str]:
    """Where each power of two begins: "512", "1k", "2k"."""
    return [_power(power) for power in range(first, last + 1)]


def _power(power: int) -> str:
    return f"{1 << power % 10}{('', 'k', 'M', 'G', 'T')[min(power // 10, 4)]}"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}" if number else ""
    size, unit = (number / 10**6, "M") if number >= 999_500 else (number / 1000, "k")
    return f"{size:,.0f}{unit}" if size >= 10 else f"{size:.1f}{unit}"
