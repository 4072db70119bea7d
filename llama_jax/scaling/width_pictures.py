"""Pictures of how models behave as they grow: learning rates and activations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.scaling.pictures import _dress, _figure, _save, _shade


def plot_transfer(losses: Mapping[tuple[str, int, float], float], out: Path) -> None:
    """Draws the loss at each learning rate, a curve a width, a panel a parameterisation.

    Args:
        losses: By parameterisation, width and learning rate; those that are not finite are left
            out.
        out: Picture to write; its ending decides the format.
    """
    names = list(dict.fromkeys(name for name, _, _ in losses))
    widths = sorted({width for _, width, _ in losses})
    figure = _figure(len(names))
    for axes, name in zip(figure.axes, names, strict=True):
        for shade, width in zip(np.linspace(0.1, 0.85, len(widths)), widths, strict=True):
            curve = sorted(
                (rate, loss)
                for (its_name, its_width, rate), loss in losses.items()
                if (its_name, its_width) == (name, width) and np.isfinite(loss)
            )
            if not curve:
                continue
            colour = _shade(shade)
            axes.plot(*zip(*curve, strict=True), "o-", color=colour, markersize=3, label=str(width))
            best = min(curve, key=lambda point: point[1])
            axes.plot(*best, "*", color=colour, markersize=13, markeredgecolor="white")
        axes.set_xscale("log")
        rates = sorted({rate for _, _, rate in losses})
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        _dress(axes, f"{name}: loss by width (star: best)", "learning rate", "nats per token")
    low = min(axes.get_ylim()[0] for axes in figure.axes)
    finite = [loss for loss in losses.values() if np.isfinite(loss)]
    for axes in figure.axes:
        axes.set_ylim(low, float(np.quantile(finite, 0.9)))
    _save(figure, out)


def plot_coordinates(
    axis: str, sizes: Sequence[int], panels: Mapping[str, Mapping[str, Any]], out: Path
) -> None:
    """Draws mean magnitudes against the size, a curve a place, a panel a parameterisation.

    Args:
        axis: What the sizes are.
        sizes: Rising.
        panels: Of each parameterisation, by place: "magnitudes", one a size, and "exponent".
        out: Picture to write; its ending decides the format.
    """
    figure = _figure(len(panels))
    for axes, (name, places) in zip(figure.axes, panels.items(), strict=True):
        for shade, (place, seen) in zip(
            np.linspace(0.1, 0.85, len(places)), places.items(), strict=True
        ):
            label = f"{place} ({seen['exponent']:+.2f})"
            axes.plot(
                sizes, seen["magnitudes"], "o-", color=_shade(shade), markersize=4, label=label
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _dress(axes, f"{name} (exponent of growth)", axis, "mean |activation|")
    low = min(axes.get_ylim()[0] for axes in figure.axes)
    high = max(axes.get_ylim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_ylim(low, high)
    _save(figure, out)
