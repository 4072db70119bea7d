"""A plan as tables for people."""

from typing import Any

from llama_jax.cli.plan import marks
from llama_jax.cli.plan.answer import Answer
from llama_jax.cli.plan.corpus import Corpus
from llama_jax.cli.plan.marks import LEGEND, RATIO, Marks
from llama_jax.cli.plan.real_table import real_table
from llama_jax.scaling.disagreement import Regrets, factors, regrets, serving_regrets, standing
from llama_jax.scaling.intervals import level
from llama_jax.scaling.laws import LossLaw
from llama_jax.scaling.plan import Plan, Point
from llama_jax.units import human_count

_NAMES = {
    "params": "parameters",
    "tokens": "tokens",
    "ratio": RATIO,
    "loss": "loss",
    "flops": "FLOPs\n(6ND)",
    "epochs": "epochs",
    "level": "interval",
}
# What is asked for stands in the title.
_COLUMNS = {
    "flops": ["params", "tokens", "ratio", "loss"],
    "params": ["tokens", "ratio", "loss", "flops"],
    "target_loss": ["params", "tokens", "ratio", "flops"],
}
_TELL = {
    "params": lambda point: human_count(point.at.params),
    "tokens": lambda point: human_count(point.at.tokens),
    "ratio": lambda point: marks.ratio(point.at.tokens, point.at.params),
    "loss": lambda point: "" if point.loss is None else marks.loss(point.loss),
    "flops": lambda point: marks.flops(point.at.flops),
    "epochs": lambda point: f"{point.epochs:.3g}" if point.epochs else "",
}
_FREE_TEXT = {"params": "parameters", "tokens": "tokens", "flops": "training FLOPs"}
# Nats per token, or a share of a cost, that no table would show.
_LEAST_LOST, _LEAST_SHARE = 5e-5, 5e-4


def print_page(answer: Answer, corpus: Corpus | None = None) -> None:
    """Prints the answer on stdout."""
    plan, stars, console = answer.plan, Marks(), marks.console()
    console.print(f"[bold]{_title(answer)}[/]")
    marks.show(console, lambda left_out: _laws_table(plan, stars, left_out))
    if any(said.served for said in plan.laws):
        console.print(f"\n[bold]{_served_title(plan)}[/]")
        marks.show(console, lambda left_out: _served_table(plan, stars, left_out))
    console.print()
    for line in (*_disagreement(plan, stars), *_explanations(plan)):
        console.print(line)
    console.print()
    console.print(real_table(answer, corpus, stars))
    for remark in answer.real.remarks:
        console.print(f"[yellow]{remark}[/]")
    if stars.used:
        console.print(f"[dim]{LEGEND}[/]")


def _laws_table(plan: Plan, stars: Marks, left_out: frozenset[str]) -> Any:
    goal = plan.request.goal
    columns = [name for name in _COLUMNS[goal] if _NAMES[name] not in left_out]
    if any(said.best.at.flops < 0.99 * plan.request.value for said in plan.laws):
        # Of a budget, where data that run out leave some of it.
        columns += ["flops"] * (goal == "flops")
    if plan.request.unique_tokens:
        columns.append("epochs")
    table = marks.table("law", [_NAMES[name] for name in (*columns, "level")])
    for said in plan.laws:
        # The budget itself, which has no column, may lie beyond the law's data.
        beyond = goal == "flops" and "flops" in said.best.extrapolates
        table.add_row(
            stars.star(said.law.about.name, beyond),
            *(_cell(said.best, name, stars) for name in columns),
            marks.level(level(said.law)),
        )
    return table


def _cell(point: Point, name: str, stars: Marks) -> str:
    text = stars.star(_TELL[name](point), point.extrapolates)
    return marks.over(text, marks.interval(point.intervals.get(name), name))


def _served_table(plan: Plan, stars: Marks, left_out: frozenset[str]) -> Any:
    goal = plan.request.goal
    columns = [name for name in _COLUMNS[goal] if name != "flops" and _NAMES[name] not in left_out]
    if plan.request.unique_tokens:
        columns.append("epochs")
    tell = marks.usd if plan.weighted_by_money else marks.flops
    costs = ["training", "in all", "saved"]
    if not plan.weighted_by_money:
        costs = ["training\n(6ND)", "in all\n(6ND+2NT)", "saved"]
    table = marks.table("law", [*(_NAMES[name] for name in columns), *costs])
    for said in plan.laws:
        if (served := said.served) is None or said.instead is None:
            continue
        total, instead = plan.demand.cost(served.at), plan.demand.cost(said.instead)
        ends = served.intervals.get("flops")
        if ends and plan.weighted_by_money:
            ends = ends._replace(
                low=ends.low * plan.demand.train_weight, high=ends.high * plan.demand.train_weight
            )
        beyond = served.extrapolates
        derived = beyond if goal != "flops" else "flops" in beyond
        training = stars.star(tell(plan.demand.training_cost(served.at)), derived)
        below = "" if ends is None else f"{tell(ends.low)}-{tell(ends.high)}"
        table.add_row(
            said.law.about.name,
            *(_cell(served, name, stars) for name in columns),
            marks.over(training, below),
            stars.star(tell(total), beyond),
            stars.star(f"{1 - total / instead:.1%}", beyond),
        )
    return table


def _title(answer: Answer) -> str:
    request, convention = answer.request, "6ND"
    if answer.convention != convention:
        convention += f"; {request.value * answer.machine.counted:.3g} {answer.convention}"
    asked = {
        "flops": f"{request.value:.3g} training FLOPs ({convention})",
        "params": f"{human_count(request.value)} parameters",
        "target_loss": f"a loss of {request.value:.4g} nats per token",
    }[request.goal]
    if request.serves:
        asked += f", {human_count(request.serve_tokens)} tokens served"
    if request.unique_tokens:
        asked += f", {human_count(request.unique_tokens)} unique tokens"
    return f"Plan for {asked}"


def _served_title(plan: Plan) -> str:
    unit = "dollars" if plan.weighted_by_money else "FLOPs"
    return {
        "flops": f"Within the budget, the cheapest of its loss to train and serve ({unit} decide)",
        "params": f"Of this size, the cheapest of its loss to train and serve ({unit} decide)",
        "target_loss": f"Of this loss, the cheapest to train and serve ({unit} decide)",
    }[plan.request.goal]


def _disagreement(plan: Plan, stars: Marks) -> list[str]:
    """How far the laws are apart, and the worst choice by each of those that tell a loss."""
    answers = standing(plan)
    beyond = any(said.best.extrapolates for said in answers)
    lines = []
    for apart, who in (
        (factors(plan), "The laws'"),
        (factors(plan, served=True), "Where they are served, the laws'"),
    ):
        told = [
            f"{_FREE_TEXT[name]} by a factor of {stars.star(f'{factor:.2f}', beyond)}"
            for name, factor in apart.items()
        ]
        if told:
            lines.append(f"{who} choices differ in {' and in '.join(told)}.")
    for judge, worst, lost in _worst(regrets(plan), _LEAST_LOST):
        told = stars.star(f"{lost:.4f}", beyond)
        lines.append(f"If {judge} is right, {worst}'s choice loses {told} nats per token.")
    for judge, worst, share in _worst(serving_regrets(plan), _LEAST_SHARE):
        told = stars.star(f"{share:.1%}", any(said.chosen.extrapolates for said in answers))
        lines.append(
            f"If {judge} is right, {worst}'s served choice costs {told} more than the cheapest of "
            "its loss, trained and served."
        )
    return lines


def _worst(judged: Regrets, least: float) -> list[tuple[str, str, float]]:
    """Of each judge the choice that it regrets most, and how much."""
    found = []
    for judge, losses in judged.items():
        worst, lost = max(losses.items(), key=lambda item: item[1])
        if lost > least and worst != judge:
            found.append((judge, worst, lost))
    return found


def _explanations(plan: Plan) -> list[str]:
    """What the tables leave open: who does not answer, what is missing, what is known of a law."""
    lines = [f"{name} does not answer: {reason}." for name, reason in plan.without_answer]
    lines += [
        f"{said.law.about.name} is no plan and is not compared: it {said.no_plan}."
        for said in plan.laws
        if said.no_plan
    ]
    for said in plan.laws:
        name, served = said.law.about.name, said.served
        if said.best.remark:
            lines.append(f"{name}: {said.best.remark}.")
        if served and served.remark and served.remark != said.best.remark:
            lines.append(f"{name}, where it is served: {served.remark}.")
    without_loss = _join(said for said in plan.laws if not isinstance(said.law, LossLaw))
    asked = [
        *(["serving"] if plan.request.serves else []),
        *(["data that run out"] if plan.request.unique_tokens else []),
    ]
    if without_loss and asked:
        apart = ", and are not compared" if plan.request.unique_tokens else ""
        lines.append(
            f"Laws without a loss say nothing of {' or '.join(asked)}{apart}: {without_loss}."
        )
    if plan.request.unique_tokens:
        repetitions = dict.fromkeys(
            limit.repetition
            for said in plan.laws
            if (limit := plan.request.limit_of(said.law)) is not None
        )
        lines += [
            f"Repeated tokens lose their worth as in {found.source}, which knows "
            f"{human_count(found.unique_range[0])} to {human_count(found.unique_range[1])} unique "
            f"tokens and up to {found.epochs_range[1]:,.0f} epochs, and no harm done by them."
            for found in repetitions
        ]
    lines += _missing_intervals(plan)
    lines += [
        f"{said.law.about.name}: {said.law.about.note}."
        for said in plan.laws
        if said.law.about.note
    ]
    return [f"[dim]{line}[/]" for line in lines]


def _missing_intervals(plan: Plan) -> list[str]:
    lines = []
    if nothing := _join(said for said in plan.laws if not level(said.law)):
        lines.append(f"No interval is known of {nothing}.")
    partly = [
        said
        for said in plan.laws
        if level(said.law) and isinstance(said.law, LossLaw) and not said.law.covariance
    ]
    if partly:
        lines.append(
            f"Of {_join(partly)} only the frontier's exponent has an interval: it says nothing of "
            "a loss, of serving or of data that run out."
        )
    return lines


def _join(answers: Any) -> str:
    return ", ".join(said.law.about.name for said in answers)
