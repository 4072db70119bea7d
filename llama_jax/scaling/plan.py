"""Plans: how many parameters on how many tokens, by each law, at what loss, time and cost."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from llama_jax.hardware import Pod
from llama_jax.scaling.laws import Allocation, Law, LossLaw, interval
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import ServingDemand, cheapest_within, least_cost

Goal = Literal["flops", "params", "target_loss"]
_SECONDS_A_DAY = 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What the work runs on, and how much of its peak the work gets.

    MFU is of the time in which steps run; goodput is the share of all time in which they do, after
    restarts, checkpoints and waiting. The two are never multiplied into one printed number.

    Attributes:
        pod: Chips.
        train_mfu: Model FLOPs over peak while training.
        prefill_mfu: The same while reading prompts.
        decode_mfu: The same while writing.
        goodput: Share of the time that trains.
        usd_per_chip_hour: Price; 0 leaves money out.
        serve_usd_per_chip_hour: Price of serving; 0 is that of training.
    """

    pod: Pod
    train_mfu: float = 0.40
    prefill_mfu: float = 0.40
    decode_mfu: float = 0.05
    goodput: float = 0.90
    usd_per_chip_hour: float = 0.0
    serve_usd_per_chip_hour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("train_mfu", "prefill_mfu", "decode_mfu", "goodput"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be in (0, 1].")
        for name in ("usd_per_chip_hour", "serve_usd_per_chip_hour"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be zero or more.")

    def train_seconds(self, flops: float) -> float:
        """Wall clock of a run, goodput included."""
        return flops / (self.pod.bf16_flops * self.train_mfu * self.goodput)

    def train_chip_hours(self, flops: float) -> float:
        """Chips times hours, goodput included."""
        return self.train_seconds(flops) * self.pod.count / 3600

    def flops_in(self, days: float) -> float:
        """Training FLOPs of so many days."""
        return self.pod.bf16_flops * self.train_mfu * self.goodput * days * _SECONDS_A_DAY

    def flops_for(self, usd: float) -> float:
        """Training FLOPs that so much money buys.

        Raises:
            ValueError: If no price is known.
        """
        if not self.usd_per_chip_hour:
            raise ValueError("--usd needs --usd-per-chip-hour: prices are by contract and region.")
        return usd / self._usd_per_flop(self.usd_per_chip_hour, self.train_mfu * self.goodput)

    def demand(self, input_tokens: float, output_tokens: float) -> ServingDemand:
        """Serving, weighed by money where there is a price and by FLOPs where there is none."""
        if not self.usd_per_chip_hour:
            return ServingDemand(input_tokens=input_tokens, output_tokens=output_tokens)
        serve = self.serve_usd_per_chip_hour or self.usd_per_chip_hour
        return ServingDemand(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            train_weight=self._usd_per_flop(self.usd_per_chip_hour, self.train_mfu * self.goodput),
            input_weight=self._usd_per_flop(serve, self.prefill_mfu),
            output_weight=self._usd_per_flop(serve, self.decode_mfu),
        )

    def _usd_per_flop(self, usd_per_chip_hour: float, share: float) -> float:
        return usd_per_chip_hour / 3600 / (self.pod.chip.bf16_flops * share)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked: a budget, a size or a loss, and what holds besides.

    Attributes:
        goal: What is given.
        value: FLOPs, parameters, or nats per token.
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
        for name in ("serve_input_tokens", "serve_output_tokens", "unique_tokens"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must be zero or more, and finite.")

    @property
    def limit(self) -> DataLimit | None:
        """Of the data; None where tokens do not run out."""
        return DataLimit(unique_tokens=self.unique_tokens) if self.unique_tokens else None

    @property
    def serves(self) -> bool:
        """Whether anything is served."""
        return self.serve_input_tokens + self.serve_output_tokens > 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LawPlan:
    """What one law says.

    Attributes:
        law: That says it.
        best: Least loss for the compute.
        loss: There; None where the law has no loss.
        params_interval: 95% interval of the parameters; None where the law has none.
        loss_interval: 95% interval of the loss; None where the law has none.
        extrapolates: Which of params, tokens and FLOPs lie outside the law's data.
        served: The cheapest of its loss, trained and served: of the loss of `best`, or, where a
            budget is given, of the loss for which it keeps to the budget. None where nothing is
            served or the law has no loss.
        served_loss: There.
        instead: The model of that loss that is the cheapest to train.
        served_extrapolates: The same of `served`.
        epochs: How often the chosen point reads each token; 0 where tokens do not run out.
    """

    law: Law
    best: Allocation
    loss: float | None
    params_interval: tuple[float, float] | None
    loss_interval: tuple[float, float] | None
    extrapolates: tuple[str, ...]
    served: Allocation | None
    served_loss: float | None
    instead: Allocation | None
    served_extrapolates: tuple[str, ...]
    epochs: float

    @property
    def chosen(self) -> Allocation:
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
    def disagreement(self) -> float:
        """Most over fewest parameters among the laws' choices."""
        params = [answer.best.params for answer in self.laws]
        return max(params) / min(params)

    def regrets(self) -> dict[str, dict[str, float]]:
        """By judging law and chosen law: nats per token lost if the judge is right.

        Each choice is judged at its own compute, so this is 0 where a law judges itself.
        """
        judges = [answer.law for answer in self.laws if isinstance(answer.law, LossLaw)]
        limit = self.request.limit
        return {
            judge.about.name: {
                answer.law.about.name: _loss(judge, answer.best, limit)
                - _loss(judge, _optimum(judge, answer.best.flops, limit), limit)
                for answer in self.laws
            }
            for judge in judges
        }


def make_plan(request: Request, laws: Sequence[Law], machine: Machine) -> Plan:
    """Asks each law.

    Raises:
        ValueError: If no law can answer.
    """
    answers, without = [], []
    demand = machine.demand(request.serve_input_tokens, request.serve_output_tokens)
    for law in laws:
        if request.goal == "target_loss" and not isinstance(law, LossLaw):
            without.append((law.about.name, "is a frontier, without a loss"))
            continue
        try:
            answers.append(_ask(law, request, demand))
        except ValueError as refusal:
            without.append((law.about.name, str(refusal)))
    if not answers:
        reasons = "; ".join(f"{name} {reason}" for name, reason in without)
        raise ValueError(f"No law answers: {reasons}")
    return Plan(
        request=request,
        laws=tuple(answers),
        demand=demand,
        weighted_by_money=machine.usd_per_chip_hour > 0,
        without_answer=tuple(without),
    )


def _ask(law: Law, request: Request, demand: ServingDemand) -> LawPlan:
    limit = request.limit
    best = _answer(law, request)
    loss = _loss(law, best, limit) if isinstance(law, LossLaw) else None
    served = served_loss = instead = None
    if loss is not None and request.serves and isinstance(law, LossLaw):
        if request.goal == "flops":
            served = cheapest_within(law, request.value, demand, limit)
            served_loss = _loss(law, served, limit)
            instead = least_cost(law, served_loss, ServingDemand(), limit)
        else:
            served, served_loss, instead = least_cost(law, loss, demand, limit), loss, best
    flops = best.flops
    has_covariance = isinstance(law, LossLaw) and bool(law.covariance)

    def with_interval(what: Callable[[Law], float]) -> tuple[float, float] | None:
        # With a limit of data the optimum is numeric and its interval is not told.
        return None if limit and isinstance(law, LossLaw) else interval(law, flops, what)

    return LawPlan(
        law=law,
        best=best,
        loss=loss,
        params_interval=with_interval(lambda law: _answer(law, request).params)
        if request.goal == "flops" or (request.goal == "target_loss" and has_covariance)
        else None,
        loss_interval=with_interval(lambda law: law.loss(*_answer(law, request)))  # type: ignore[union-attr]
        if request.goal != "target_loss" and has_covariance
        else None,
        extrapolates=law.about.extrapolates(best),
        served=served,
        served_loss=served_loss,
        instead=instead,
        served_extrapolates=law.about.extrapolates(served) if served else (),
        epochs=limit.epochs((served or best).tokens) if limit else 0.0,
    )


def _answer(law: Law, request: Request) -> Allocation:
    limit = request.limit
    if request.goal == "params":
        return law.optimum_for_params(request.value)
    if request.goal == "flops":
        return _optimum(law, request.value, limit)
    if not isinstance(law, LossLaw):
        raise ValueError(f"{law.about.name} has no loss.")
    if limit is None:
        return law.optimum_for_loss(request.value)
    return least_cost(law, request.value, ServingDemand(), limit)


def _optimum(law: Law, flops: float, limit: DataLimit | None) -> Allocation:
    if limit is None or not isinstance(law, LossLaw):
        return law.optimum(flops)
    return limit.optimum(law, flops)


def _loss(law: LossLaw, at: Allocation, limit: DataLimit | None) -> float:
    return limit.loss(law, *at) if limit else law.loss(*at)
