"""A plan is what its request asks for, says how sure it is, and refuses what no law knows."""

import dataclasses

import pytest

from llama_jax.hardware import parse_pod
from llama_jax.scaling.disagreement import factors, regrets, serving_regrets
from llama_jax.scaling.laws import NO_LIMIT, LossLaw, Provenance
from llama_jax.scaling.machine import Machine
from llama_jax.scaling.plan import Request, make_plan
from llama_jax.scaling.published import (
    BESIROGLU,
    CHINCHILLA_1,
    CHINCHILLA_3,
    LLAMA_3,
    MUENNIGHOFF,
)
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import demand_that_justifies

ALL = (BESIROGLU, CHINCHILLA_3, CHINCHILLA_1, LLAMA_3)


def plan(goal, value, laws=ALL, machine=Machine(pod=parse_pod("h100:8")), **more):
    request = Request(goal=goal, value=value, **more)
    demand = machine.demand(request.serve_input_tokens, request.serve_output_tokens)
    return make_plan(request, laws, demand)


def small_law(name="small.json", E=1.8):
    """As a ladder of models of a few million parameters gives it."""
    about = Provenance(
        name=name,
        source="a ladder",
        counting="6ND",
        params_range=(3e5, 5e6),
        tokens_range=(1e6, 1e8),
        flops_range=(1e13, 3e15),
    )
    return LossLaw(about=about, E=E, A=400.0, B=2000.0, alpha=0.35, beta=0.37)


def test_what_a_law_chooses_has_an_interval_of_its_level_and_what_is_asked_has_none():
    for goal, value, free in (
        ("flops", 1e21, {"params", "tokens", "loss"}),
        ("params", 7e9, {"tokens", "flops", "loss"}),
        ("target_loss", 2.2, {"params", "tokens", "flops"}),
    ):
        for limit in (0.0, 3e10):
            made = plan(goal, value, (BESIROGLU,), serve_output_tokens=1e12, unique_tokens=limit)
            for point in (made.first.best, made.first.served):
                assert set(point.intervals) == free
                for name, (low, high, level) in point.intervals.items():
                    told = point.loss if name == "loss" else getattr(point.at, name)
                    assert low < told < high
                    assert level == 0.95


def test_a_published_exponent_gives_a_frontiers_choices_an_interval_and_no_loss_one():
    for goal, value in (("flops", 1e21), ("params", 7e9)):
        made = plan(goal, value, (CHINCHILLA_3, CHINCHILLA_1, LLAMA_3))
        for said in made.laws[:2]:
            assert set(said.best.intervals) >= {"tokens"}
            assert "loss" not in said.best.intervals
            assert {ends.level for ends in said.best.intervals.values()} == {0.80}
        assert made.laws[2].best.intervals == {}


def test_a_law_without_a_limit_plans_between_its_runs_alone():
    endless = small_law(E=NO_LIMIT / 10)
    assert plan("flops", 1e14, (endless,)).first.no_plan == ""
    with pytest.raises(ValueError, match=r"small\.json shows no limit of the loss \(E is 0\)"):
        plan("flops", 1e16, (endless,))
    beside = plan("flops", 1e16, (small_law("other.json"), endless)).laws[1]
    assert "shows no limit" in beside.no_plan


def test_a_law_is_no_plan_a_thousand_times_beyond_its_data_but_may_stand_beside_one():
    with pytest.raises(ValueError, match=r"small\.json is asked [\d,]+ times above its data"):
        plan("flops", 1e23, (small_law(),))
    made = plan("flops", 1e23, (BESIROGLU, small_law()))
    assert made.laws[1].no_plan
    assert factors(made) == {}
    assert set(regrets(made)) == {"besiroglu"}
    # Well beyond its data a law is starred, and a plan.
    assert plan("flops", 1e16, (small_law(),)).first.best.extrapolates
    # LLaMA-3's budget is 25 times beyond these laws' sizes, 50 times beyond their tokens.
    assert not any(said.no_plan for said in plan("flops", 3.8e25).laws)


def test_of_a_size_the_best_tokens_know_that_data_run_out():
    limit = DataLimit(unique_tokens=3e10)
    best = plan("params", 7e9, (BESIROGLU,), unique_tokens=3e10).first.best
    assert best.at.tokens == pytest.approx(249e9, rel=0.01)
    assert best.epochs == pytest.approx(8.3, rel=0.01)
    # At that compute no other size has a lower loss.
    assert limit.optimum(BESIROGLU, best.at.flops).params == pytest.approx(7e9, rel=1e-6)


@pytest.mark.parametrize("served", [0.0, 1e12])
def test_compute_that_data_make_no_use_of_is_left_unspent_and_that_is_said(served):
    said = plan("flops", 1e22, (BESIROGLU,), unique_tokens=1e8, serve_output_tokens=served).first
    limit = DataLimit(unique_tokens=1e8)
    whole = limit.loss(BESIROGLU, *limit.optimum(BESIROGLU, 1e22))
    assert said.best.at.flops < 2e19
    assert said.best.loss == pytest.approx(whole + 1e-4, abs=2e-6)
    assert "of the budget are left unspent" in said.chosen.remark
    assert said.best.epochs < 200
    if served:
        assert said.served.at.flops < 1e22 / 10


def test_where_compute_still_lowers_the_loss_all_of_it_is_spent():
    said = plan("flops", 1e22, (BESIROGLU,), unique_tokens=3e10).first
    assert said.best.at.flops == pytest.approx(1e22)
    assert said.best.remark == ""


def test_of_a_size_and_of_a_loss_exhausted_data_are_remarked_too():
    by_size = plan("params", 7e10, (BESIROGLU,), unique_tokens=1e9).first
    assert "lower the loss of this size by less than 0.0001" in by_size.best.remark
    # Without the rule this size is best at thousands of epochs.
    best = DataLimit(unique_tokens=1e9).optimum_for_params(BESIROGLU, 7e10)
    assert by_size.best.epochs < 200 < best.tokens / 1e9
    limit = DataLimit(unique_tokens=1e8)
    nearly = limit.loss(BESIROGLU, *limit.optimum(BESIROGLU, 1e20))
    by_loss = plan("target_loss", nearly, (BESIROGLU,), unique_tokens=1e8).first
    assert "all but exhausted: a loss 0.0001 higher takes" in by_loss.best.remark


def test_a_choice_beyond_the_law_of_repetition_is_flagged():
    many = plan("flops", 1e20, (MUENNIGHOFF,), unique_tokens=5e7).first.best
    assert "unique_tokens" in many.extrapolates
    few = plan("flops", 1e20, (MUENNIGHOFF,), unique_tokens=5e9).first.best
    assert "unique_tokens" not in few.extrapolates


def test_a_law_fitted_with_its_own_repetition_plans_with_it():
    fast = dataclasses.replace(MUENNIGHOFF.repetition, token_decay=2.0)
    forgetful = dataclasses.replace(BESIROGLU, repetition=fast)
    own, usual = (
        plan("flops", 1e21, (law,), unique_tokens=5e9).first.best.at
        for law in (forgetful, BESIROGLU)
    )
    assert own.tokens < usual.tokens


def test_a_size_that_will_be_served_keeps_its_size_and_gets_the_tokens_that_pay():
    said = plan("params", 7e9, serve_output_tokens=1e13).first
    assert said.served.at.params == 7e9
    assert said.served.at.tokens > said.best.at.tokens
    assert demand_that_justifies(BESIROGLU, said.served.at) == pytest.approx(1e13)
    assert said.instead.params > 7e9
    assert BESIROGLU.loss(*said.instead) == pytest.approx(said.served.loss)


def test_what_is_compared_is_what_the_laws_were_free_to_choose():
    assert set(factors(plan("flops", 1e21))) == {"params"}
    by_size = plan("params", 7e9)
    tokens = [said.best.at.tokens for said in by_size.laws]
    assert factors(by_size) == {"tokens": max(tokens) / min(tokens)}
    assert factors(by_size)["tokens"] > 1.9
    assert set(factors(plan("target_loss", 2.2))) == {"params", "flops"}
    assert factors(plan("params", 7e9, (BESIROGLU,))) == {}


def test_laws_that_do_not_know_that_data_run_out_are_not_compared_with_those_that_do():
    made = plan("flops", 1e22, unique_tokens=1e9)
    assert set(regrets(made)["besiroglu"]) == {"besiroglu", "chinchilla-3"}


def test_served_choices_are_judged_by_what_they_cost():
    judged = serving_regrets(plan("flops", 1e22, serve_output_tokens=1e13))
    assert set(judged) == {"besiroglu", "chinchilla-3"}
    for judge, wasted in judged.items():
        assert wasted[judge] == pytest.approx(0, abs=1e-9)
        assert all(share > 1e-3 for chosen, share in wasted.items() if chosen != judge)
    assert serving_regrets(plan("flops", 1e22)) == {}
    # Also where the choices are all that such data can give.
    exhausted = plan("flops", 1e22, serve_output_tokens=1e13, unique_tokens=1e6)
    assert set(serving_regrets(exhausted)) == {"besiroglu", "chinchilla-3"}


def test_prices_and_mfu_of_both_phases_of_serving_move_the_choice():
    pod = parse_pod("h100:8")
    dear = Machine(pod=pod, usd_per_chip_hour=2.0, decode_usd_per_chip_hour=4.0)
    prompts = Machine(pod=pod, usd_per_chip_hour=2.0, prefill_usd_per_chip_hour=0.1)
    usual = Machine(pod=pod, usd_per_chip_hour=2.0)

    def served(machine):
        made = plan(
            "flops", 1e22, (BESIROGLU,), machine, serve_input_tokens=5e12, serve_output_tokens=5e12
        )
        return made.first.served.at.params

    assert served(dear) < served(usual) < served(prompts)
    halved = dataclasses.replace(usual, serve_goodput=0.45)
    assert served(halved) < served(usual)
    assert halved.decode_chip_hours(1e22) == pytest.approx(2 * usual.decode_chip_hours(1e22))


def test_a_frontier_leads_from_the_cheapest_to_train_through_the_served_choice():
    made = plan("flops", 1e22, (BESIROGLU,), serve_output_tokens=1e13)
    models = made.frontier(made.first)
    assert models[0].params == pytest.approx(made.first.instead.params, rel=1e-3)
    assert models[-1].params < made.first.served.at.params
    least = min(made.demand.cost(at) for at in models)
    assert least == pytest.approx(made.demand.cost(made.first.served.at), rel=1e-3)
