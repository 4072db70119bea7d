"""Curves on a page: SVG that stretches, under labels that do not. No script.

chart("loss, nats per token", [Curve("line", steps, losses)], marks=[(120, "spike")])
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from llama_jax.page import text
from llama_jax.units import human_count

# More points than this say no more at any width, and make the page heavy.
_MOST_POINTS = 800
STYLE = """
figure{margin:1rem 0 1.6rem}
.plot{position:relative;height:13rem;margin-left:3.6rem}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.plot *{vector-effect:non-scaling-stroke;fill:none}
.grid{stroke:var(--line);stroke-width:1}
.line{stroke:var(--kept);stroke-width:2;stroke-linejoin:round}
.faint{stroke:var(--kept);stroke-width:1;opacity:.35}
.dots{stroke:var(--gone);stroke-width:8;stroke-linecap:round}
.mark{stroke:var(--gone);stroke-width:1.5;stroke-dasharray:4 3}
.plot span{position:absolute;color:var(--soft);font-size:.8rem;white-space:nowrap;
font-variant-numeric:tabular-nums}
.plot .y{right:100%;padding-right:.5rem;transform:translateY(50%)}
.plot .x{top:100%;padding-top:.2rem;transform:translateX(-50%)}
figcaption{margin-bottom:.5rem;font-weight:600}
.plot+p{margin:1.7rem 0 0 3.6rem;text-align:center;max-width:none}
.whole svg{display:block;width:100%;height:1.8rem;margin:.8rem 0 .4rem}
@media print{figure{break-inside:avoid}}
"""


class Curve(NamedTuple):
    """Points of a chart.

    Attributes:
        paint: "line", "faint" or "dots".
        x: Ascending.
        y: Finite.
    """

    paint: str
    x: Float[np.ndarray, "P"]
    y: Float[np.ndarray, "P"]


def chart(
    title: str,
    curves: Sequence[Curve],
    *,
    marks: Iterable[tuple[float, str]] = (),
    logarithmic: bool = False,
) -> str:
    """A chart of curves over updates.

    Args:
        title: What is shown, with its unit.
        curves: Not all of them empty.
        marks: Updates at which something happened, and what.
        logarithmic: Whether values that are all positive stand on a logarithmic axis.
    """
    xs = np.concatenate([curve.x for curve in curves])
    ys = np.concatenate([curve.y for curve in curves])
    logarithmic = logarithmic and ys.min() > 0
    across = _Axis(float(xs.min()), float(xs.max()), logarithmic=False)
    up = _Axis(float(ys.min()), float(ys.max()), logarithmic=logarithmic)
    drawn = [f'<path class="grid" d="M0 {100 - up.at(tick):.2f}H100"/>' for tick in up.ticks()]
    inside = [mark for mark in marks if across.low <= mark[0] <= across.high]
    drawn += [
        f'<path class="mark" d="M{across.at(place):.2f} 0V100"><title>{text(what)}</title></path>'
        for place, what in inside
    ]
    for curve in curves:
        points = [(across.at(a), 100 - up.at(b)) for a, b in zip(*_thin(curve), strict=True)]
        drawn.append(f'<path class="{curve.paint}" d="{_path(points, curve.paint)}"/>')
    labels = [
        f'<span class="y" style="bottom:{up.at(tick):.2f}%">{_number(tick)}</span>'
        for tick in up.ticks()
    ] + [
        f'<span class="x" style="left:{across.at(tick):.2f}%">{human_count(tick)}</span>'
        for tick in across.ticks()
    ]
    scale = ", logarithmic" if logarithmic else ""
    return (
        f"<figure><figcaption>{text(title)}{scale}</figcaption>"
        f'<div class="plot"><svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(title)} over updates">{"".join(drawn)}</svg>{"".join(labels)}</div>'
        '<p class="soft">updates</p></figure>'
    )


class _Axis:
    """Values to percent of the way."""

    def __init__(self, low: float, high: float, *, logarithmic: bool):
        self._logarithmic = logarithmic
        self.low, self.high = low, high
        if low == high:
            self.low, self.high = (low / 2, low * 2) if logarithmic else (low - 0.5, high + 0.5)

    def at(self, value: float) -> float:
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self._logarithmic
            else (self.low, self.high, value)
        )
        return 100 * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        candidates = self._powers() if self._logarithmic else self._steps()
        return [tick for tick in candidates if self.low <= tick <= self.high]

    def _powers(self) -> Iterable[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        parts = (1, 2, 5) if len(decades) <= 3 else (1,)
        return (part * 10.0**power for power, part in itertools.product(decades, parts))

    def _steps(self) -> Iterable[float]:
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(nice for nice in (1, 2, 5, 10) if nice * power >= rough)
        first = math.ceil(self.low / step)
        return (count * step for count in range(first, first + 7))


def _thin(curve: Curve) -> tuple[list[float], list[float]]:
    """Few enough points, the lowest and the highest of each stretch among them."""
    stretches = _MOST_POINTS // 2
    if len(curve.x) <= 2 * stretches or curve.paint == "dots":
        return curve.x.tolist(), curve.y.tolist()
    chosen: set[int] = {0, len(curve.x) - 1}
    for stretch in np.array_split(np.arange(len(curve.x)), stretches):
        chosen |= {int(stretch[curve.y[stretch].argmin()]), int(stretch[curve.y[stretch].argmax()])}
    kept = sorted(chosen)
    return curve.x[kept].tolist(), curve.y[kept].tolist()


def _path(points: Iterable[tuple[float, float]], paint: str) -> str:
    if paint == "dots":  # of no length, so that they stay round however the picture stretches
        return "".join(f"M{x:.2f} {y:.2f}h0" for x, y in points)
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def _number(value: float) -> str:
    return human_count(value) if abs(value) >= 1000 else f"{value:.4g}"
