"""How far the laws of a plan are apart, and what each choice costs if another law is right."""

from llama_jax.scaling.laws import LossLaw
from llama_jax.scaling.plan import LawPlan, Plan, Point, loss_at
from llama_jax.scaling.serving import least_cost

Regrets = dict[str, dict[str, float]]
# What is compared of each goal: of a budget tokens are only the other side of parameters.
_COMPARED = {"flops": ("params",), "params": ("tokens",), "target_loss": ("params", "flops")}


def standing(plan: Plan) -> tuple[LawPlan, ...]:
    """The laws that can be compared: asked near enough to their data, and of the same thing.

    Where data run out, a law without a loss does not know it, and answers another question.
    """
    return tuple(
        answer
        for answer in plan.laws
        if not answer.no_plan
        and (not plan.request.unique_tokens or isinstance(answer.law, LossLaw))
    )


def factors(plan: Plan, *, served: bool = False) -> dict[str, float]:
    """Most over least among the laws' choices, of what was theirs to choose; empty for one law.

    Args:
        plan: Laws' answers.
        served: Of the served choices, not those that are the best to train.
    """
    points = [answer.served if served else answer.best for answer in standing(plan)]
    chosen = [point for point in points if point is not None]
    if len(chosen) < 2:
        return {}
    found = {}
    for name in _COMPARED[plan.request.goal]:
        values = [getattr(point.at, name) for point in chosen]
        found[name] = max(values) / min(values)
    return found


def regrets(plan: Plan) -> Regrets:
    """By judging law and choosing law: nats per token lost if the judge is right.

    Each choice is judged at its own compute, so this is 0 where a law judges itself.
    """
    request, answers = plan.request, standing(plan)

    def lost(judge: LossLaw, point: Point) -> float:
        limit, flops = request.limit_of(judge), point.at.flops
        best = limit.optimum(judge, flops) if limit else judge.optimum(flops)
        return loss_at(judge, point.at, limit) - loss_at(judge, best, limit)

    return {
        judge.law.about.name: {
            answer.law.about.name: lost(judge.law, answer.best) for answer in answers
        }
        for judge in answers
        if isinstance(judge.law, LossLaw)
    }


def serving_regrets(plan: Plan) -> Regrets:
    """The same of served choices: what each costs above the cheapest of its loss, as a share.

    Cost is of training and serving, loss the judge's.
    """
    served = [answer for answer in standing(plan) if answer.served is not None]

    def wasted(judge: LossLaw, point: Point) -> float:
        limit = plan.request.limit_of(judge)
        loss = loss_at(judge, point.at, limit)
        cheapest = least_cost(judge, loss, plan.demand, limit)
        return plan.demand.cost(point.at) / plan.demand.cost(cheapest) - 1

    found: Regrets = {}
    for judge in served:
        assert isinstance(judge.law, LossLaw)
        found[judge.law.about.name] = {
            answer.law.about.name: wasted(judge.law, answer.served)
            for answer in served
            if answer.served is not None
        }
    return found
