"""Pictures of plans and fits."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_jax.scaling.laws import Allocation, LossLaw
from llama_jax.scaling.plan import LawPlan, Plan
from llama_jax.scaling.real_runs import REAL_RUNS
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import same_loss
from llama_jax.units import human_count

if TYPE_CHECKING:
    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.frontier import FrontierFit
    from llama_jax.scaling.runs import Runs

_INK, _FAINT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#b45309")
_NAMED = ("GPT-3 175B", "Gopher 280B", "Chinchilla 70B", "LLaMA-1 7B", "LLaMA-3 8B")
_NAMED += ("LLaMA-3.1 405B",)


def plot_plan(plan: Plan, out: Path) -> None:
    """Draws isoFLOP curves of the first law with a loss, and every law's frontier.

    Where a model is served, also what its training costs against what its serving does.

    Args:
        plan: At least one law's answer.
        out: Picture to write; its ending decides the format.
    """
    judge = next((answer for answer in plan.laws if isinstance(answer.law, LossLaw)), None)
    serves = judge is not None and judge.served is not None
    figure = _figure(3 if serves else 2)
    left, right, *costs = figure.axes
    if judge is not None:
        _draw_isoflops(left, judge, plan.request.limit)
    _draw_frontiers(right, plan)
    if costs:
        _draw_costs(costs[0], plan)
    _save(figure, out)


def _draw_isoflops(axes: Any, answer: LawPlan, limit: DataLimit | None) -> None:
    law, budget = answer.law, answer.best.flops
    assert isinstance(law, LossLaw)

    def loss_of(params: float, tokens: float) -> float:
        return limit.loss(law, params, tokens) if limit else law.loss(params, tokens)

    optima = []
    for scale, strength in ((0.1, 0.35), (0.3, 0.55), (1.0, 1.0), (3.0, 0.55), (10.0, 0.35)):
        best = limit.optimum(law, budget * scale) if limit else law.optimum(budget * scale)
        params = np.logspace(math.log10(best.params) - 1, math.log10(best.params) + 1, 60)
        losses = [loss_of(N, budget * scale / 6 / N) for N in params]
        axes.plot(params, losses, color=_COLOURS[0], alpha=strength, linewidth=1.6)
        axes.annotate(
            f"{budget * scale:.1e}",
            (params[-1], losses[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
            va="center",
        )
        optima.append((best.params, loss_of(*best)))
    axes.plot(*zip(*optima, strict=True), color=_INK, linewidth=1, linestyle="--", label="frontier")
    _mark(axes, answer.best, answer.loss, "o", "least training compute")
    if answer.served is not None:
        _mark(axes, answer.served, answer.served_loss, "D", "cheapest to train and serve")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.2 * (high - low), high)  # room for the legend
    axes.set_xscale("log")
    _dress(
        axes,
        f"Loss at equal FLOPs, by {law.about.name}",
        "parameters",
        "nats per token",
        legend="lower left",
    )


def _mark(axes: Any, at: Allocation, height: float | None, marker: str, label: str) -> None:
    axes.plot(
        [at.params],
        [height],
        marker,
        color=_COLOURS[1],
        markersize=9,
        markeredgecolor="white",
        label=f"{label}: {human_count(at.params)} on {human_count(at.tokens)}",
    )


def _draw_frontiers(axes: Any, plan: Plan) -> None:
    budgets = [answer.chosen.flops for answer in plan.laws]
    real = [run for run in REAL_RUNS if run.name in _NAMED]
    low = min(*budgets, 1e18) / 3
    high = max(*budgets, *(run.at.flops for run in real)) * 3
    flops = np.logspace(math.log10(low), math.log10(high), 40)
    for colour, answer in zip(_COLOURS, plan.laws, strict=False):
        law = answer.law
        axes.plot(
            flops,
            [law.optimum(value).params for value in flops],
            color=colour,
            linewidth=1.0,
            alpha=0.5,
            linestyle=":",
        )
        inside = np.geomspace(*law.about.flops_range, 20)
        axes.plot(
            inside,
            [law.optimum(value).params for value in inside],
            color=colour,
            linewidth=2,
            label=law.about.name,
        )
    for run in real:
        axes.plot([run.at.flops], [run.at.params], "s", color=_FAINT, markersize=4)
        axes.annotate(
            run.name,
            (run.at.flops, run.at.params),
            xytext=(5, -3),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
        )
    first = plan.laws[0]
    axes.plot([first.best.flops], [first.best.params], "o", color=_COLOURS[1], markersize=9,
              markeredgecolor="white", label="this plan")  # fmt: skip
    if first.served is not None:
        axes.plot([first.served.flops], [first.served.params], "D", color=_COLOURS[1],
                  markersize=9, markeredgecolor="white", label="cheapest to serve")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _dress(
        axes,
        "Best size for the compute (dotted: extrapolated)",
        "training FLOPs (6ND)",
        "parameters",
    )


def _draw_costs(axes: Any, plan: Plan) -> None:
    """Models of one loss, by each law, from the cheapest to train to ever smaller ones."""
    demand, unit = plan.demand, "dollars" if plan.weighted_by_money else "FLOPs"

    def costs(models: list[Allocation]) -> tuple[list[float], list[float]]:
        return (
            [demand.training_cost(at) for at in models],
            [demand.serving_cost(at.params) for at in models],
        )

    for colour, answer in zip(_COLOURS, plan.laws, strict=False):
        if not isinstance(answer.law, LossLaw) or answer.served is None:
            continue
        assert answer.instead is not None and answer.served_loss is not None
        most = 4 * max(answer.served.flops, answer.instead.flops)
        models = same_loss(answer.law, answer.served_loss, most, plan.request.limit)
        trained, served = costs(models)
        name = f"{answer.law.about.name}, {answer.served_loss:.3f} nats"
        axes.plot(trained, served, color=colour, linewidth=1.8, label=name)
        axes.plot(*costs([answer.instead]), "o", color=colour, markersize=8,
                  markeredgecolor="white")  # fmt: skip
        axes.plot(*costs([answer.served]), "D", color=colour, markersize=8,
                  markeredgecolor="white")  # fmt: skip
        total = demand.cost(answer.served)
        training = [at for at in trained if total - at > 0.9 * min(served)]
        axes.plot(training, [total - at for at in training], color=colour, linewidth=0.8,
                  linestyle=":")  # fmt: skip
        for at in (answer.instead, answer.served):
            (x,), (y,) = costs([at])
            axes.annotate(human_count(at.params), (x, y), xytext=(6, 4),
                          textcoords="offset points", color=_FAINT, fontsize=8)  # fmt: skip
    axes.plot([], [], "o", color=_FAINT, label="least to train")
    axes.plot([], [], "D", color=_FAINT, label="least in all (dotted: equal sums)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _dress(axes, "Training against serving, at one loss", f"training, {unit}", f"serving, {unit}")


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
