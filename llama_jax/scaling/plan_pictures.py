"""Pictures of plans."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.scaling.laws import Allocation, Law, LossLaw
from llama_jax.scaling.pictures import _COLOURS, _FAINT, _INK, _dress, _figure, _save
from llama_jax.scaling.plan import LawPlan, Plan, Point, loss_at
from llama_jax.scaling.real_runs import REAL_RUNS
from llama_jax.scaling.repeated import SAME_LOSS
from llama_jax.units import human_count

_NAMED = ("GPT-3 175B", "Gopher 280B", "Chinchilla 70B", "LLaMA-1 7B", "LLaMA-3 8B")
_NAMED += ("LLaMA-3.1 405B",)
# Of the plan's FLOPs, and how strongly each curve is drawn.
_CURVES = ((0.1, 0.35), (0.3, 0.55), (1.0, 1.0), (3.0, 0.55), (10.0, 0.35))


def plot_plan(plan: Plan, out: Path) -> None:
    """Draws isoFLOP curves of the first law with a loss, and every law's frontier.

    Where a model is served, also what its training costs against what its serving does.

    Args:
        plan: At least one law's answer.
        out: Picture to write; its ending decides the format.
    """
    judge = next((answer for answer in plan.laws if isinstance(answer.law, LossLaw)), None)
    serves = any(answer.served is not None for answer in plan.laws)
    figure = _figure((judge is not None) + 1 + serves)
    panels = iter(figure.axes)
    if judge is not None:
        _draw_isoflops(next(panels), judge, plan)
    _draw_frontiers(next(panels), plan)
    if serves:
        _draw_costs(next(panels), plan)
    _save(figure, out)


def _optimum(plan: Plan, law: Law, flops: float) -> Allocation:
    limit = plan.request.limit_of(law)
    return limit.optimum(law, flops) if limit and isinstance(law, LossLaw) else law.optimum(flops)


def _draw_isoflops(axes: Any, answer: LawPlan, plan: Plan) -> None:
    law, budget, limit = answer.law, answer.best.at.flops, plan.request.limit_of(answer.law)
    assert isinstance(law, LossLaw)

    def loss_of(params: float, tokens: float) -> float:
        return loss_at(law, Allocation(params, tokens), limit)

    optima = []
    curves = {budget * scale: strength for scale, strength in _CURVES}
    if answer.served is not None and abs(math.log(answer.served.at.flops / budget)) > 0.1:
        curves[answer.served.at.flops] = 1.0
    for flops, strength in sorted(curves.items()):
        best = _optimum(plan, law, flops)
        params = np.logspace(math.log10(best.params) - 1, math.log10(best.params) + 1, 60)
        losses = [loss_of(N, flops / 6 / N) for N in params]
        axes.plot(params, losses, color=_COLOURS[0], alpha=strength, linewidth=1.6)
        axes.annotate(
            f"{flops:.1e}",
            (params[-1], losses[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
            va="center",
        )
        optima.append((best.params, loss_of(*best)))
    axes.plot(*zip(*optima, strict=True), color=_INK, linewidth=1, linestyle="--", label="frontier")
    _mark(axes, answer.best, "o", "least training compute")
    if answer.served is not None:
        _mark(axes, answer.served, "D", "cheapest to train and serve")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.2 * (high - low), high)  # room for the legend
    axes.set_xscale("log")
    _dress(
        axes,
        f"Loss at equal FLOPs (6ND), by {law.about.name}",
        "parameters",
        "nats per token",
        legend="lower left",
    )


def _mark(axes: Any, point: Point, marker: str, label: str) -> None:
    at = point.at
    axes.plot(
        [at.params],
        [point.loss],
        marker,
        color=_COLOURS[1],
        markersize=9,
        markeredgecolor="white",
        label=f"{label}: {human_count(at.params)} on {human_count(at.tokens)}",
    )


def _draw_frontiers(axes: Any, plan: Plan) -> None:
    budgets = [answer.chosen.at.flops for answer in plan.laws]
    real = [run for run in REAL_RUNS if run.name in _NAMED]
    low = min(*budgets, 1e18) / 3
    high = max(*budgets, *(run.at.flops for run in real)) * 3
    flops = np.logspace(math.log10(low), math.log10(high), 40)
    for colour, answer in zip(_COLOURS, plan.laws, strict=False):
        law = answer.law
        inside = np.geomspace(*law.about.flops_range, 20)
        fresh = plan.request.unique_tokens and not isinstance(law, LossLaw)
        label = law.about.name + (", of fresh tokens" if fresh else "")
        for values, look in (
            (flops, {"linewidth": 1.0, "alpha": 0.5, "linestyle": ":"}),
            (inside, {"linewidth": 2, "label": label}),
        ):
            best = [_optimum(plan, law, value) for value in values if _buys(plan, law, value)]
            axes.plot([at.flops for at in best], [at.params for at in best], color=colour, **look)
    for run in real:
        axes.plot([run.at.flops], [run.at.params], "s", color=_FAINT, markersize=4)
        axes.annotate(
            run.name,
            (run.at.flops, run.at.params),
            # Beside LLaMA-1's 7B stands LLaMA-3's 8B.
            xytext=(-8, -12) if run.name == "LLaMA-1 7B" else (5, -3),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
        )
    first = plan.first
    axes.plot([first.best.at.flops], [first.best.at.params], "o", color=_COLOURS[1], markersize=9,
              markeredgecolor="white", label="this plan")  # fmt: skip
    if first.served is not None:
        axes.plot([first.served.at.flops], [first.served.at.params], "D", color=_COLOURS[1],
                  markersize=9, markeredgecolor="white", label="cheapest to serve")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _dress(
        axes,
        "Best size for the compute (dotted: extrapolated)",
        "training FLOPs (6ND)",
        "parameters",
    )


def _told(value: float, unit: str) -> str:
    return f"{value:.2g}" if unit == "FLOPs" else human_count(value)


def _buys(plan: Plan, law: Law, flops: float) -> bool:
    """Whether the second half of so much compute lowers the loss."""
    limit = plan.request.limit_of(law)
    if limit is None or not isinstance(law, LossLaw):
        return True
    half, whole = (loss_at(law, limit.optimum(law, value), limit) for value in (flops / 2, flops))
    return half - whole > SAME_LOSS


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
        assert answer.instead is not None
        models = plan.frontier(answer)
        trained, served = costs(models)
        name = f"{answer.law.about.name}, {answer.served.loss:.3f} nats"
        axes.plot(trained, served, color=colour, linewidth=1.8, label=name)
        axes.plot(*costs([answer.instead]), "o", color=colour, markersize=8,
                  markeredgecolor="white")  # fmt: skip
        axes.plot(*costs([answer.served.at]), "D", color=colour, markersize=8,
                  markeredgecolor="white")  # fmt: skip
        total = demand.cost(answer.served.at)
        training = [at for at in trained if total - at > 0.9 * min(served)]
        axes.plot(training, [total - at for at in training], color=colour, linewidth=0.8,
                  linestyle=":")  # fmt: skip
        for at in (answer.instead, answer.served.at):
            (x,), (y,) = costs([at])
            axes.annotate(human_count(at.params), (x, y), xytext=(6, 4),
                          textcoords="offset points", color=_FAINT, fontsize=8)  # fmt: skip
    axes.plot([], [], "o", color=_FAINT, label="least to train")
    axes.plot([], [], "D", color=_FAINT, label="least in all (dotted: equal sums)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: _told(value, unit))
    in_training, in_serving = (
        ("dollars", "dollars") if plan.weighted_by_money else ("FLOPs (6ND)", "FLOPs (2N a token)")
    )
    _dress(
        axes,
        "Training against serving, at one loss",
        f"training, {in_training}",
        f"serving, {in_serving}",
    )
