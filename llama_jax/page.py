"""A page for people that stands alone: no script, nothing from the network, one style.

Light or dark as the reader's machine, readable on a phone and on paper. What it shows may be
hostile; `text` makes it harmless.
"""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llama_jax.plain_text import visible

_MAX_ROWS = 12
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Okabe and Ito's palette, which people who confuse colours tell apart; "gone" is hatched too.
_LIGHT = "--page:#fff;--ink:#1a1a1a;--soft:#5c5c5c;--line:#ddd;--pale:#f3f3f1;--kept:#0072b2"
_LIGHT += ";--other:#009e73;--gone:#d55e00;--warn:#fdf0e3"
_DARK = "--page:#15171a;--ink:#e8e8e6;--soft:#a5a8ad;--line:#3a3e44;--pale:#212429;--kept:#56b4e9"
_DARK += ";--other:#2fc196;--gone:#f0a05a;--warn:#33261a"
STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere;
print-color-adjust:exact;-webkit-print-color-adjust:exact}}
h1{{font-size:1.7rem;line-height:1.2;margin:0 0 .5rem}}
h2{{font-size:1.35rem;margin:3rem 0 .5rem;padding-top:1rem;border-top:2px solid var(--line)}}
h3{{font-size:1.05rem;line-height:1.35;margin:2rem 0 .2rem}}
a{{color:var(--kept)}}
p{{margin:.4rem 0;max-width:44rem}}
.soft{{color:var(--soft);font-size:.9rem}}
.warn{{background:var(--warn);border-left:4px solid var(--gone);padding:.6rem .9rem;margin:1rem 0}}
dl{{display:grid;grid-template-columns:repeat(4,1fr);gap:.8rem;margin:1.2rem 0}}
dl div{{background:var(--pale);border-radius:6px;padding:.6rem .8rem}}
dt{{color:var(--soft);font-size:.85rem}}
dd{{margin:0;font-size:1.2rem;font-weight:600}}
table{{border-collapse:collapse;width:100%;margin:.6rem 0;font-variant-numeric:tabular-nums}}
th,td{{padding:.3rem .6rem .3rem 0;text-align:right;vertical-align:middle;
border-bottom:1px solid var(--line)}}
thead th{{color:var(--soft);font-weight:400;font-size:.85rem;vertical-align:bottom;
overflow-wrap:normal}}
tbody th{{text-align:left;font-weight:500;min-width:9.5rem;max-width:20rem}}
td{{white-space:nowrap}}
.bar{{width:28%;padding-right:0}}
.bar svg{{display:block;width:100%;height:1.1rem}}
.track{{fill:var(--pale)}}.kept{{fill:var(--kept)}}.other{{fill:var(--other)}}
.gone{{fill:url(#hatch)}}
.key{{display:inline-block;width:1.6em;height:.8em;margin:0 .3em 0 .8em}}
.columns{{display:block;width:100%;max-width:40rem;height:auto}}
.columns text{{fill:var(--ink);font:9px system-ui,sans-serif;text-anchor:middle}}
.columns .soft{{fill:var(--soft)}}
details{{margin:.5rem 0}}
summary{{cursor:pointer;padding:.2rem 0}}
.example{{margin:.5rem 0 .8rem;padding:.5rem .8rem;background:var(--pale);border-radius:6px;
break-inside:avoid}}
.id{{font:.85rem/1.4 ui-monospace,monospace;color:var(--soft)}}
.text{{margin-top:.3rem;white-space:pre-wrap;max-height:14rem;overflow:auto;contain:paint;
font-size:.92rem}}
pre{{white-space:pre-wrap;font-size:.85rem;background:var(--pale);padding:.8rem;border-radius:6px}}
@media (max-width:40rem){{
thead{{display:none}}dl{{grid-template-columns:1fr 1fr}}
tr{{display:flex;flex-wrap:wrap;gap:0 1.1rem;padding:.45rem 0;border-bottom:1px solid var(--line)}}
th,td{{border:0;padding:0;text-align:left;white-space:normal}}
tbody th{{flex-basis:100%;max-width:none}}
td:empty{{display:none}}
td[data-of]::after{{content:" " attr(data-of);color:var(--soft);font-size:.85rem}}
.bar{{flex-basis:100%;width:100%;margin-top:.25rem}}}}
@media print{{html{{font-size:11px}}body{{max-width:none;font-size:1rem}}
tr,.columns,.example{{break-inside:avoid}}
h2,h3{{break-after:avoid}}.text{{max-height:none;overflow:visible}}
details::details-content{{content-visibility:visible;block-size:auto}}}}
"""
# Referred to by every bar; patterns are found anywhere in the page.
HATCH = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="5" height="5" style="fill:var(--warn)"/>'
    '<rect width="3" height="5" style="fill:var(--gone)"/></pattern></defs></svg>'
)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        label: Its head, plain text.
        cells: Plain text, one a column.
        bars: One below the other; each is shares of the width, in [0, 1], and how they are painted:
            "kept", "other" or "gone".
    """

    label: str
    cells: tuple[str, ...]
    bars: tuple[tuple[tuple[float, str], ...], ...]


def write_page(path: Path, title: str, body: Iterable[str], *, style: str = "") -> None:
    """Writes a page.

    Args:
        path: Of the page.
        title: Plain text.
        body: Pieces of HTML.
        style: Rules beside those of every page.
    """
    pieces = "\n".join(body)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body>{HATCH}<h1>{text(title)}</h1>\n{pieces}\n</body></html>\n",
        encoding="utf-8",
    )


def text(foreign: object) -> str:
    """Anything as text in a page: nothing in it is markup, and nothing acts unseen."""
    return html.escape(visible(str(foreign)))


def facts(named: Mapping[str, str]) -> str:
    """The few numbers that matter most, side by side."""
    shown = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in named.items())
    return f"<dl>{shown}</dl>"


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows with bars; `head` names the labels, then each column of cells."""
    names = "".join(f'<th scope="col">{text(name)}</th>' for name in head[1:])
    body = "".join(_row(row, head[1:]) for row in rows)
    return (
        f'<table><thead><tr><th scope="col" style="text-align:left">{text(head[0])}</th>{names}'
        f'<th class="bar"></th></tr></thead><tbody>{body}</tbody></table>'
    )


def folded(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table of the first rows, and the others behind a line that says how many they are."""
    # A line for a single row more would spare nothing.
    shown = len(rows) if len(rows) <= _MAX_ROWS + 1 else _MAX_ROWS
    more = ""
    if rest := rows[shown:]:
        more = f"<details><summary>{len(rest):,} more</summary>{table(head, rest)}</details>"
    return table(head, rows[:shown]) + more


def bars(drawn: Sequence[Iterable[tuple[float, str]]]) -> str:
    """Bars one below the other, as wide as where they stand; see `Row.bars`."""
    height = 100 / max(len(drawn), 1)
    parts = (part for at, bar in enumerate(drawn) for part in _segments(bar, at * height, height))
    return f'<svg aria-hidden="true">{"".join(parts)}</svg>'


def key(*entries: tuple[str, str]) -> str:
    """What the paints of bars mean, in words."""
    shown = "".join(
        f'<svg class="key" aria-hidden="true"><rect class="{paint}" width="100%" height="100%"/>'
        f"</svg>{text(meaning)}"
        for paint, meaning in entries
    )
    return f'<p class="soft">{shown}</p>'


def _row(row: Row, head: Sequence[str]) -> str:
    cells = "".join(
        f'<td data-of="{text(name)}">{text(cell)}</td>'
        for name, cell in zip(head, row.cells, strict=True)
    )
    return (
        f'<tr><th scope="row"><bdi>{text(row.label)}</bdi></th>{cells}<td class="bar">'
        f"{bars(row.bars)}</td></tr>"
    )


def _segments(bar: Iterable[tuple[float, str]], top: float, height: float) -> Iterator[str]:
    place = f'y="{top:.0f}%" height="{height - 4:.0f}%"'
    yield f'<rect class="track" width="100%" {place}/>'
    start = 0.0
    for share, paint in bar:
        if share > 0:
            # What is there is seen, however little it is.
            width = max(100 * share, 0.4)
            yield f'<rect class="{paint}" x="{100 * start:.2f}%" width="{width:.2f}%" {place}/>'
        start += share
