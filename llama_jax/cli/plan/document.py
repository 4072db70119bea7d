"""A plan as a document for programs."""

import dataclasses
import math
from typing import Any

from llama_jax.cli.plan.answer import Answer
from llama_jax.cli.plan.corpus import Corpus
from llama_jax.cli.plan.cost import cost_of
from llama_jax.flops import count_params
from llama_jax.scaling.disagreement import factors, regrets, serving_regrets
from llama_jax.scaling.intervals import Interval
from llama_jax.scaling.laws import Allocation, LossLaw
from llama_jax.scaling.plan import LawPlan, Plan, Point, loss_at
from llama_jax.scaling.shapes import describe

_FRONTIER_POINTS = 25


def document(answer: Answer, corpus: Corpus | None = None) -> dict[str, Any]:
    """The plan for programs."""
    plan, real = answer.plan, answer.real
    return {
        "request": dataclasses.asdict(plan.request),
        "laws": [_law(plan, said) for said in plan.laws],
        "without_answer": dict(plan.without_answer),
        "disagreement": {
            "factors": factors(plan),
            "served_factors": factors(plan, served=True),
            "regret_nats": regrets(plan),
            "served_regret_cost_share": serving_regrets(plan),
        },
        "run": {
            "law": plan.first.law.about.name,
            "extrapolates": plan.first.chosen.extrapolates,
            "shape": describe(real.shape),
            "params": real.at.params,
            "non_embedding_params": count_params(real.shape).non_embedding,
            "tokens": real.at.tokens,
            "loss_nats_per_token": real_loss(answer),
            "flops": real.flops,
            "batch_rows": real.batch_rows,
            "batch_tokens": real.batch_tokens,
            "seq_len": real.shape.max_seq_len,
            "num_steps": real.num_steps,
            "peak_lr": real.peak_lr,
            "peak_lr_of": real.rate.law,
            "peak_lr_extrapolates": real.rate.extrapolates,
            "suggestions": [dataclasses.asdict(advice) for advice in real.suggestions],
            "remarks": real.remarks,
            "state_bytes": real.state_bytes,
            "mixture": corpus.document(real.at.tokens) if corpus else [],
        },
        "cost": cost_of(answer),
    }


def real_loss(answer: Answer) -> float | None:
    """Of the rounded run, by the law that the plan is of; None where that has none."""
    law = answer.plan.first.law
    if not isinstance(law, LossLaw):
        return None
    return loss_at(law, answer.real.at, answer.request.limit_of(law))


def interval_document(ends: Interval | None) -> dict[str, float | None] | None:
    """An interval for programs; an end that nothing holds is None."""
    if ends is None:
        return None
    return ends._asdict() | {"high": ends.high if ends.high < math.inf else None}


def _law(plan: Plan, said: LawPlan) -> dict[str, Any]:
    return {
        "law": said.law.about.name,
        "about": dataclasses.asdict(said.law.about),
        **_point(plan, said.best),
        "no_plan": said.no_plan or None,
        "served": _served(plan, said),
    }


def _point(plan: Plan, point: Point) -> dict[str, Any]:
    intervals = {
        "params_interval": "params",
        "tokens_interval": "tokens",
        "train_flops_interval": "flops",
        "loss_interval": "loss",
    }
    told = {
        "params": point.at.params,
        "tokens": point.at.tokens,
        "train_flops": point.at.flops,
        "loss_nats_per_token": point.loss,
        "extrapolates": point.extrapolates,
        "epochs": point.epochs or None,
        "remark": point.remark or None,
    }
    return told | {
        name: interval_document(point.intervals.get(of)) for name, of in intervals.items()
    }


def _served(plan: Plan, said: LawPlan) -> dict[str, Any] | None:
    served, instead = said.served, said.instead
    if served is None or instead is None:
        return None
    unit = "usd" if plan.weighted_by_money else "flops"
    demand = plan.demand
    return _point(plan, served) | {
        "total_flops": _total_flops(plan, served.at),
        "params_of_best": instead.params,
        "total_flops_of_best": _total_flops(plan, instead),
        "cost_unit": unit,
        "train_cost": demand.training_cost(served.at),
        "serve_cost": demand.serving_cost(served.at.params),
        "saved_share": 1 - demand.cost(served.at) / demand.cost(instead),
        "frontier": [
            {
                "params": at.params,
                "tokens": at.tokens,
                "train_cost": demand.training_cost(at),
                "serve_cost": demand.serving_cost(at.params),
            }
            for at in _thinned(plan.frontier(said))
        ],
    }


def _thinned(models: list[Allocation]) -> list[Allocation]:
    if len(models) <= _FRONTIER_POINTS:
        return models
    last = len(models) - 1
    return [models[round(i * last / (_FRONTIER_POINTS - 1))] for i in range(_FRONTIER_POINTS)]


def _total_flops(plan: Plan, at: Allocation) -> float:
    return at.flops + 2 * at.params * plan.request.serve_tokens
