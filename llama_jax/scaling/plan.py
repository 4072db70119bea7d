"""Plans: how many parameters on how many tokens, by each law, at what loss."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from llama_jax.scaling.intervals import Interval, by_constants, by_exponent
from llama_jax.scaling.laws import Allocation, Law, LossLaw, crossing
from llama_jax.scaling.repeated import SAME_LOSS, DataLimit
from llama_jax.scaling.serving import (
    ServingDemand,
    cheapest_to_train,
    cheapest_within,
    least_cost,
    same_loss,
    tokens_that_pay,
)
from llama_jax.units import human_count

Goal = Literal["flops", "params", "target_loss"]
# What the law finds, where the goal is given.
FREE: dict[Goal, tuple[str, ...]] = {
    "flops": ("params", "tokens", "loss"),
    "params": ("tokens", "flops", "loss"),
    "target_loss": ("params", "tokens", "flops"),
}
# Parameters or tokens that many times above a law's data are no plan.
_FARTHEST = 1000.0
# Compute is left unspent where a tenth of it or more would lower the loss by less than SAME_LOSS.
_WORTH_TELLING = 0.9
_LEAST_SHARE_LOG = math.log(1e30)
_FRONTIER_BEYOND = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked: a budget, a size or a loss, and what holds besides.

    Attributes:
        goal: What is given.
        value: FLOPs (6ND), parameters, or nats per token.
        serve_input_tokens: Read in prompts over the model's life.
        serve_output_tokens: Written over the model's life.
        unique_tokens: That exist; 0 where they do not run out.
    """

    goal: Goal
    value: float
    serve_input_tokens: float = 0.0
    serve_output_tokens: float = 0.0
    unique_tokens: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            name = self.goal.replace("_", "-")
            raise ValueError(f"--{name}={self.value} must be positive and finite.")
        for option, value in (
            ("--serve-tokens", self.serve_tokens),
            ("--unique-tokens", self.unique_tokens),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{option}={value} must be zero or more, and finite.")

    def limit_of(self, law: Law) -> DataLimit | None:
        """Of the data, as a law with a loss sees it; None where tokens do not run out."""
        if not self.unique_tokens or not isinstance(law, LossLaw):
            return None
        if law.repetition is None:
            return DataLimit(unique_tokens=self.unique_tokens)
        return DataLimit(unique_tokens=self.unique_tokens, repetition=law.repetition)

    @property
    def serve_tokens(self) -> float:
        """Read and written."""
        return self.serve_input_tokens + self.serve_output_tokens

    @property
    def serves(self) -> bool:
        """Whether anything is served."""
        return self.serve_tokens > 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A choice of a law.

    Attributes:
        at: Parameters and tokens.
        loss: There; None where the law has no loss.
        extrapolates: Which of params, tokens, flops, unique_tokens and epochs lie outside the data
            of the law, or of the law of repetition.
        intervals: Of params, tokens, flops and loss, where they are the law's answer and it tells
            how sure it is of them.
        epochs: How often each token is read; 0 where tokens do not run out.
        remark: What data that run out make no use of; empty where they use it all.
    """

    at: Allocation
    loss: float | None
    extrapolates: tuple[str, ...]
    intervals: dict[str, Interval]
    epochs: float
    remark: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LawPlan:
    """What one law says.

    Attributes:
        law: That says it.
        best: Least loss for the compute.
        served: The cheapest of its loss, trained and served: of the loss that is asked for, of the
            size that is asked for, or of a loss for which it keeps to the budget. None where
            nothing is served or the law has no loss.
        instead: The model of that loss that is the cheapest to train.
        no_plan: Why nothing should be trained after this answer; empty where it stands.
    """

    law: Law
    best: Point
    served: Point | None
    instead: Allocation | None
    no_plan: str

    @property
    def chosen(self) -> Point:
        """The serving-optimal point where there is one, else the compute-optimal one."""
        return self.served or self.best


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Every law's answer to one request.

    Attributes:
        request: What was asked.
        laws: Answers; the first one is the plan, the others are what else may be true.
        demand: What is served, and what training and serving cost.
        weighted_by_money: Whether they were weighed in dollars, not FLOPs.
        without_answer: Laws that cannot answer, and why.
    """

    request: Request
    laws: tuple[LawPlan, ...]
    demand: ServingDemand
    weighted_by_money: bool
    without_answer: tuple[tuple[str, str], ...]

    @property
    def first(self) -> LawPlan:
        """The plan."""
        return self.laws[0]

    def frontier(self, answer: LawPlan) -> list[Allocation]:
        """Models of a law's served loss, from the cheapest to train to ever smaller ones.

        Training against serving: they go on to four times the training of the served choice, or of
        the cheapest to train.
        """
        assert isinstance(answer.law, LossLaw)
        assert answer.served is not None and answer.instead is not None
        assert answer.served.loss is not None
        most = _FRONTIER_BEYOND * max(answer.served.at.flops, answer.instead.flops)
        limit = self.request.limit_of(answer.law)
        return same_loss(answer.law, answer.served.loss, most, limit)


def make_plan(request: Request, laws: Sequence[Law], demand: ServingDemand) -> Plan:
    """Asks each law.

    Args:
        request: What is asked.
        laws: The first one that answers is the plan.
        demand: Of the request's served tokens; its weights are dollars or 1.

    Raises:
        ValueError: If no law can answer, or the first one is asked too far from its data.
    """
    answers, without = [], []
    for law in laws:
        if request.goal == "target_loss" and not isinstance(law, LossLaw):
            without.append((law.about.name, "it is a frontier, without a loss"))
            continue
        try:
            answers.append(_ask(law, request, demand))
        except ValueError as refusal:
            without.append((law.about.name, str(refusal).removesuffix(".")))
    if not answers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in without)
        raise ValueError(f"No law answers. {reasons}.")
    if refused := answers[0].no_plan:
        raise ValueError(
            f"--law={answers[0].law.about.name} {refused}. Ask nearer to its data, or name it "
            "after a law that reaches so far, which is then the plan."
        )
    return Plan(
        request=request,
        laws=tuple(answers),
        demand=demand,
        weighted_by_money=demand.train_weight != 1.0,
        without_answer=tuple(without),
    )


def _ask(law: Law, request: Request, demand: ServingDemand) -> LawPlan:
    best = _point(law, _Question(request=request, flops=request.value))
    served, instead = None, None
    if request.serves and isinstance(law, LossLaw):
        served = _point(law, _Question(request=request, flops=request.value, demand=demand))
        assert served.loss is not None
        instead = cheapest_to_train(law, served.loss, request.limit_of(law))
    points = [best] if served is None else [best, served]
    return LawPlan(
        law=law,
        best=best,
        served=served,
        instead=instead,
        no_plan=next(filter(None, (too_far(law, point.at) for point in points)), ""),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """A request as a law is asked it.

    Attributes:
        request: What is asked.
        flops: To spend, of a budget; the request's own, or as much as changes the loss.
        demand: Served; None where the model is only trained.
        whole: Whether tokens are spent that no longer change the loss.
    """

    request: Request
    flops: float
    demand: ServingDemand | None = None
    whole: bool = False

    def answer(self, law: Law) -> Allocation:
        """What a law chooses."""
        limit, value = self.request.limit_of(law), self.request.value
        if not isinstance(law, LossLaw):
            goal = self.request.goal
            return law.optimum(self.flops) if goal == "flops" else law.optimum_for_params(value)
        match self.request.goal:
            case "flops" if self.demand:
                return cheapest_within(law, self.flops, self.demand, limit)
            case "flops":
                return limit.optimum(law, self.flops) if limit else law.optimum(self.flops)
            case "params" if self.demand:
                at = tokens_that_pay(law, value, self.demand, limit)
            case "params":
                at = (
                    limit.optimum_for_params(law, value) if limit else law.optimum_for_params(value)
                )
            case "target_loss" if self.demand:
                return least_cost(law, value, self.demand, limit)
            case "target_loss":
                return cheapest_to_train(law, value, limit)
        return at if self.whole or limit is None else _no_longer(law, at, limit)


def _no_longer(law: LossLaw, at: Allocation, limit: DataLimit) -> Allocation:
    """The same size on no more tokens than change its loss."""
    enough = limit.tokens_for(law, at.params, limit.loss(law, *at) + SAME_LOSS)
    return Allocation(at.params, enough) if enough < _WORTH_TELLING * at.tokens else at


def _without_waste(question: _Question, law: Law) -> tuple[_Question, str]:
    """The question without compute that data that run out make no use of, and what to say of it."""
    request, limit = question.request, question.request.limit_of(law)
    if limit is None or not isinstance(law, LossLaw):
        return question, ""
    there = f"{human_count(limit.unique_tokens)} unique tokens"
    if request.goal == "params":
        whole, enough = dataclasses.replace(question, whole=True).answer(law), question.answer(law)
        if enough == whole:
            return question, ""
        return question, (
            f"more than {human_count(enough.tokens)} tokens from {there} lower the loss of this "
            f"size by less than {SAME_LOSS:g} nats per token"
        )
    if request.goal == "target_loss":
        least = cheapest_to_train(law, request.value, limit).flops
        near = cheapest_to_train(law, request.value + SAME_LOSS, limit).flops
        if near > least / 2:
            return question, ""
        return question, (
            f"{there} are all but exhausted: a loss {SAME_LOSS:g} higher takes {near:.3g} FLOPs "
            f"(6ND) and not {least:.3g}"
        )

    def reached(log_flops: float) -> bool:
        return of(math.exp(log_flops)) <= wanted

    def of(flops: float) -> float:
        return limit.loss(law, *dataclasses.replace(question, flops=flops).answer(law))

    wanted, most = of(request.value) + SAME_LOSS, math.log(request.value)
    if not reached(most + math.log(_WORTH_TELLING)):
        return question, ""
    least = math.exp(crossing(reached, most - _LEAST_SHARE_LOG, most))
    return dataclasses.replace(question, flops=least), (
        f"{least:.3g} FLOPs (6ND) get all that {there} give, to {SAME_LOSS:g} nats per token; the "
        f"other {1 - least / request.value:.1%} of the budget are left unspent"
    )


def loss_at(law: LossLaw, at: Allocation, limit: DataLimit | None) -> float:
    """Nats per token, of data that may run out."""
    return limit.loss(law, *at) if limit else law.loss(*at)


def _point(law: Law, question: _Question) -> Point:
    question, remark = _without_waste(question, law)
    request = question.request
    at, limit = question.answer(law), request.limit_of(law)

    def quantities(law: Law) -> dict[str, float]:
        at = question.answer(law)
        told = {"params": at.params, "tokens": at.tokens, "flops": at.flops}
        if isinstance(law, LossLaw):
            told["loss"] = loss_at(law, at, limit)
        return {name: told[name] for name in FREE[request.goal] if name in told}

    intervals = {}
    if isinstance(law, LossLaw) and law.covariance:
        intervals = by_constants(law, quantities)
    elif not (limit or question.demand or request.goal == "target_loss"):
        # A frontier of another exponent knows no loss, no serving and no limit of the data.
        intervals = by_exponent(law, quantities)
    repeats = limit.extrapolates(at.tokens) if limit else ()
    return Point(
        at=at,
        loss=loss_at(law, at, limit) if isinstance(law, LossLaw) else None,
        extrapolates=(*law.about.extrapolates(at), *repeats),
        intervals=intervals,
        epochs=limit.epochs(at.tokens) if limit else 0.0,
        remark=remark,
    )


def too_far(law: Law, at: Allocation) -> str:
    """Why a law should not be asked so far from its data; empty where it may be."""
    about = law.about
    (fewest, most), (shortest, longest) = (
        [human_count(end) for end in ends] for ends in (about.params_range, about.tokens_range)
    )
    data = f"{fewest} to {most} parameters on {shortest} to {longest} tokens"
    asked = f"{human_count(at.params)} on {human_count(at.tokens)}"
    if isinstance(law, LossLaw) and not law.has_limit and about.extrapolates(at):
        return (
            f"shows no limit of the loss (E is 0), so that it says nothing outside of its data "
            f"({data}); this is {asked}"
        )
    if (times := about.times_above(at)) > _FARTHEST:
        return (
            f"is asked {times:,.0f} times above its data ({data}); this is {asked}, and over "
            f"{_FARTHEST:,.0f} times nothing is planned"
        )
    return ""
