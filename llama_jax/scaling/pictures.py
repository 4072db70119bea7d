"""Pictures of fits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_jax.units import human_count

if TYPE_CHECKING:
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.fit_repeated import RepeatedFit
    from llama_jax.scaling.frontier import FrontierFit
    from llama_jax.scaling.runs import Runs

_INK, _FAINT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#b45309")


def plot_fit(runs: "Runs", fit: "Fit", out: Path) -> None:
    """Draws runs against the fitted loss, and the residuals."""
    figure = _figure(2)
    left, right = figure.axes
    compute = 6 * runs.params * runs.tokens
    sizes = np.log10(runs.params)
    dots = left.scatter(compute, runs.loss, c=sizes, cmap="viridis", s=14)
    bar = figure.colorbar(dots, ax=left, format=lambda value, _: human_count(10**value))
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_FAINT, length=0)
    flops = np.geomspace(compute.min(), compute.max(), 60)
    best = [fit.law.loss(*fit.law.optimum(value)) for value in flops]
    left.plot(flops, best, color=_INK, linewidth=1.2, label="fitted frontier")
    left.set_xscale("log")
    _dress(left, f"{len(runs)} runs, coloured by parameters", "FLOPs (6ND)", "loss")
    right.axhline(0, color=_GRID)
    right.scatter(compute, 100 * fit.residuals, c=sizes, cmap="viridis", s=14)
    right.set_xscale("log")
    _dress(right, "Measured over fitted loss", "FLOPs (6ND)", "residual, %", legend="")
    _save(figure, out)


def plot_repeated(runs: "Runs", fit: "RepeatedFit", out: Path) -> None:
    """Draws how far runs are from the fitted loss, and what so many epochs are worth."""
    figure = _figure(2)
    left, right = figure.axes
    epochs = np.maximum(runs.tokens / runs.unique_tokens, 1.0)
    sizes = np.log10(runs.params)
    dots = left.scatter(epochs, 100 * fit.residuals, c=sizes, cmap="viridis", s=14)
    bar = figure.colorbar(dots, ax=left, format=lambda value, _: human_count(10**value))
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_FAINT, length=0)
    left.axhline(0, color=_FAINT, linewidth=0.8)
    title = f"{len(runs)} runs, measured over fitted loss, coloured by parameters"
    _dress(left, title, "epochs", "residual, %", legend="")
    most = max(2.0, float(epochs.max()))
    read = np.geomspace(1, most, 60)

    def worth(decay: np.ndarray) -> np.ndarray:
        return 1 + decay * -np.expm1(-(read - 1) / decay)

    if len(fit.resamples):
        draws = worth(fit.resamples[:, 4:5])
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        right.fill_between(read, low, high, color=_COLOURS[0], alpha=0.2, linewidth=0, label="95%")
    right.plot(read, worth(np.array(fit.token_decay)), color=_COLOURS[0], label="fitted")
    right.plot(read, read, "--", color=_FAINT, linewidth=1, label="fresh tokens")
    right.set_ylim(0.9, 1.15 * max(worth(np.array(fit.token_decay))[-1], 2.0))
    for axes in (left, right):
        axes.set_xscale("log")
    _dress(right, "What they are worth", "epochs", "epochs of fresh tokens")
    _save(figure, out)


def plot_ladder(runs: "Runs", fit: "Fit", held_out: "Runs", out: Path) -> None:
    """Draws each size's losses on the law's curves, and runs that the law was not fitted to.

    Args:
        runs: That were fitted.
        fit: Their law.
        held_out: That it predicts.
        out: Picture to write; its ending decides the format.
    """
    figure = _figure(2)
    left, right = figure.axes
    sizes = np.unique(np.concatenate([runs.params, held_out.params]))
    shades = [_shade(value) for value in np.linspace(0.1, 0.9, len(sizes))]
    for colour, size in zip(shades, sizes, strict=True):
        for part, marker, line in ((runs, "o", "-"), (held_out, "*", "--")):
            of_size = part.params == size
            if not of_size.any():
                continue
            tokens, losses = part.tokens[of_size], part.loss[of_size]
            curve = np.geomspace(tokens.min() / 1.3, tokens.max() * 1.3, 40)
            fitted = [fit.law.loss(size, value) for value in curve]
            left.plot(curve, fitted, line, color=colour, linewidth=1.2)
            look = {"color": colour, "markersize": 12 if marker == "*" else 5}
            label = human_count(size) + (", held out" if part is held_out else "")
            left.plot(tokens, losses, marker, **look, label=label)
            expected = np.array([fit.law.loss(size, value) for value in tokens])
            right.plot(6 * size * tokens, 100 * (losses / expected - 1), marker, **look)
    right.axhline(0, color=_FAINT, linewidth=0.8)
    for axes in (left, right):
        axes.set_xscale("log")
    title = f"{len(runs)} runs, the law fitted to them, and what it predicts"
    _dress(left, title, "tokens", "nats per token")
    _dress(right, "Measured over the law's loss (stars: held out)", "FLOPs (6ND)", "%", legend="")
    _save(figure, out)


def plot_frontier(runs: "Runs", fit: "FrontierFit", out: Path) -> None:
    """Draws what best sizes were read from, and the power law through them."""
    figure = _figure(2)
    left, right = figure.axes
    if fit.law.about.name == "isoflop":
        _draw_budgets(left, runs, fit)
    else:
        _draw_curves(left, runs, fit)
    flops = np.array([point.flops for point in fit.points])
    right.plot(flops, [point.params for point in fit.points], "o", color=_COLOURS[0])
    right.plot(
        flops,
        fit.law.coefficient * flops**fit.law.exponent,
        color=_INK,
        label=f"N = {fit.law.coefficient:.3g} C^{fit.law.exponent:.3f}",
    )
    right.set_xscale("log")
    right.set_yscale("log")
    _dress(right, "Best size for the compute", "FLOPs", "parameters")
    _save(figure, out)


def _draw_budgets(axes: Any, runs: "Runs", fit: "FrontierFit") -> None:
    for shade, point in zip(np.linspace(0.15, 0.9, len(fit.points)), fit.points, strict=True):
        near = np.abs(np.log(runs.flops / point.flops)) < 0.05
        order = np.argsort(runs.params[near])
        sizes, losses = runs.params[near][order], runs.loss[near][order]
        axes.plot(sizes, losses, "o-", color=_shade(shade), markersize=3, linewidth=0.8)
    best = [(point.params, point.loss) for point in fit.points]
    axes.plot(*zip(*best, strict=True), "*", color=_COLOURS[1], markersize=9, label="least loss")
    axes.set_xscale("log")
    _dress(axes, "Loss at equal FLOPs", "parameters", "loss")


def _draw_curves(axes: Any, runs: "Runs", fit: "FrontierFit") -> None:
    sizes = np.unique(runs.params)
    for shade, size in zip(np.linspace(0.15, 0.9, len(sizes)), sizes, strict=True):
        of_size = np.flatnonzero(runs.params == size)
        order = of_size[np.argsort(runs.flops[of_size])]
        axes.plot(
            runs.flops[order],
            runs.loss[order],
            "o-",
            color=_shade(shade),
            markersize=3,
            linewidth=0.8,
            label=human_count(size) if len(sizes) < 9 else None,
        )
    envelope = [(point.flops, point.loss) for point in fit.points]
    axes.plot(*zip(*envelope, strict=True), color=_COLOURS[1], linewidth=2, label="envelope")
    axes.set_xscale("log")
    _dress(axes, "Loss of each size", "FLOPs", "loss")


def _shade(value: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](value)


def _figure(columns: int) -> Any:
    from matplotlib.figure import Figure  # no pyplot: nothing global, and no display is needed

    figure = Figure(figsize=(6.4 * columns, 4.8), layout="constrained")
    figure.subplots(1, columns)
    return figure


def _dress(axes: Any, title: str, x: str, y: str, *, legend: str = "best") -> None:
    axes.set_title(title, loc="left", color=_INK, weight="bold", fontsize=11)
    axes.set_xlabel(x, color=_FAINT)
    axes.set_ylabel(y, color=_FAINT)
    axes.tick_params(colors=_FAINT, length=0, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc=legend, framealpha=0.9, edgecolor="none", labelcolor=_INK, fontsize=8)


def _save(figure: Any, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150, facecolor="white")
