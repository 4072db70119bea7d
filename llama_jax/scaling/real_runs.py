"""What was trained by others, to hold a law against."""

import dataclasses
from collections.abc import Sequence

from llama_jax.scaling.intervals import Interval, constants_ends, exponent_ends, level
from llama_jax.scaling.laws import Allocation, Law, LossLaw
from llama_jax.scaling.plan import Plan, too_far
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import break_even_demand, demand_that_justifies


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RealRun:
    """A published run, or one that a law plans.

    Attributes:
        name: Of the model.
        at: Parameters and tokens.
        source: Where both are from.
        planned: Whether a law chose it, and nobody trained it.
    """

    name: str
    at: Allocation
    source: str
    planned: bool = False


_LLAMA_1 = "Touvron et al. 2023 (arXiv:2302.13971), Table 2"
_LLAMA_2 = "Touvron et al. 2023 (arXiv:2307.09288), Table 1"
_LLAMA_3 = "Meta's Llama 3 and 3.1 model cards"
_CHINCHILLA = "Hoffmann et al. 2022 (arXiv:2203.15556), Table 1"

REAL_RUNS = tuple(
    RealRun(name=name, at=Allocation(params, tokens), source=source)
    for name, params, tokens, source in (
        ("GPT-3 175B", 175e9, 300e9, _CHINCHILLA),
        ("Gopher 280B", 280e9, 300e9, _CHINCHILLA),
        ("Chinchilla 70B", 70e9, 1.4e12, _CHINCHILLA),
        ("LLaMA-1 7B", 6.7e9, 1.0e12, _LLAMA_1),
        ("LLaMA-1 13B", 13.0e9, 1.0e12, _LLAMA_1),
        ("LLaMA-1 33B", 32.5e9, 1.4e12, _LLAMA_1),
        ("LLaMA-1 65B", 65.2e9, 1.4e12, _LLAMA_1),
        ("LLaMA-2 7B", 6.7e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 13B", 13.0e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 34B", 33.7e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 70B", 69.0e9, 2.0e12, _LLAMA_2),
        ("LLaMA-3 8B", 8.0e9, 15.0e12, _LLAMA_3),
        ("LLaMA-3 70B", 70.6e9, 15.0e12, _LLAMA_3),
        ("LLaMA-3.1 405B", 405.9e9, 15.6e12, _LLAMA_3),
    )
)


def planned_runs(plan: Plan) -> tuple[RealRun, ...]:
    """What each law of a plan would train, to stand beside what was trained."""
    return tuple(
        RealRun(
            name=f"by {answer.law.about.name}",
            at=answer.chosen.at,
            source="the served choice" if answer.served else "the choice",
            planned=True,
        )
        for answer in plan.laws
        if not answer.no_plan
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A run as a law sees it.

    Attributes:
        run: That was trained.
        best: The law's choice at the run's compute.
        loss: Of the run, by the law; the runs' own data and tokenizers differ. None where the law
            has none, and with it the next three.
        lost: Nats per token above the law's choice.
        break_even: Served tokens from which the run is cheaper than the compute-optimal model of
            its loss; infinite where it has no fewer parameters.
        justified_by: Served tokens at which nothing of its loss is cheaper; negative where its
            parameters are more than any serving asks for.
        intervals: Of best_params, lost, break_even and justified_by, where the law tells how sure
            it is: what the two laws at the ends of the interval of its balance of parameters
            against tokens say of this run. The lower end of served tokens may be negative or
            infinite: then one of these laws says never.
        extrapolates: Which of params, tokens and FLOPs lie outside the law's data.
        too_far: Whether they do so by more than a law can be asked; then nothing else is told.
    """

    run: RealRun
    best: Allocation
    loss: float | None
    lost: float | None
    break_even: float | None
    justified_by: float | None
    intervals: dict[str, Interval]
    extrapolates: tuple[str, ...]
    too_far: bool

    @property
    def verdict(self) -> str:
        """Under or over what least training compute takes."""
        ratio = self.run.at.tokens / self.best.tokens
        if 0.8 <= ratio <= 1.25:
            return "right"
        return f"{'over' if ratio > 1 else 'under'} {max(ratio, 1 / ratio):.1f}x"


def compare(
    law: Law, runs: Sequence[RealRun] = REAL_RUNS, limit: DataLimit | None = None
) -> tuple[Comparison, ...]:
    """Runs by one law.

    Args:
        law: That judges; one without a loss tells the best size alone.
        runs: Real or planned.
        limit: Of the data of all of these runs.
    """
    return tuple(_compare(law, run, limit) for run in runs)


def _compare(law: Law, run: RealRun, limit: DataLimit | None) -> Comparison:
    told = _told(law, run.at, limit)
    ends: Sequence[Law] = () if limit else exponent_ends(law)
    if isinstance(law, LossLaw):
        ends = constants_ends(law, lambda law: _balance(law, run.at, limit)) or ends
    others = [_told(end, run.at, limit) for end in ends]
    intervals = {}
    for name in others[0] if others else ():
        values = [other[name] for other in others]
        if name in ("best_params", "lost"):
            values = sorted([*values, told[name]])
        # Served tokens rise from one end to the other, from "never" where less training is better.
        intervals[name] = Interval(values[0], values[-1], level(law))
    params = told.pop("best_params")
    return Comparison(
        run=run,
        best=Allocation(params, run.at.flops / 6 / params),
        loss=told.get("loss"),
        lost=told.get("lost"),
        break_even=told.get("break_even"),
        justified_by=told.get("justified_by"),
        intervals=intervals,
        extrapolates=law.about.extrapolates(run.at),
        too_far=bool(too_far(law, run.at)),
    )


def _told(law: Law, at: Allocation, limit: DataLimit | None) -> dict[str, float]:
    if not isinstance(law, LossLaw):
        return {"best_params": law.optimum(at.flops).params}
    best = limit.optimum(law, at.flops) if limit else law.optimum(at.flops)
    loss, least = (limit.loss(law, *x) if limit else law.loss(*x) for x in (at, best))
    return {
        "best_params": best.params,
        "loss": loss,
        "lost": max(0.0, loss - least),
        "break_even": break_even_demand(law, at, limit),
        "justified_by": demand_that_justifies(law, at, limit),
    }


def _balance(law: LossLaw, at: Allocation, limit: DataLimit | None) -> float:
    """What parameters lower the loss by, over what tokens do; 1 on the frontier."""
    elasticities = limit.elasticities(law, *at) if limit else law.elasticities(*at)
    return elasticities[0] / elasticities[1]
