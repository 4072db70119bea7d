"""Laws agree with their papers, and their closed forms with numbers found without them."""

import math

import pytest

from llama_jax.scaling.laws import Allocation, LossLaw, numeric_optimum
from llama_jax.scaling.published import (
    BESIROGLU,
    CHINCHILLA_1,
    CHINCHILLA_3,
    CHINCHILLA_3_ROUNDED,
    LLAMA_3,
    MUENNIGHOFF,
    PLANNERS,
    SARDANA,
    find_law,
)
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.serving import (
    ServingDemand,
    break_even_demand,
    cheapest_within,
    demand_that_justifies,
    least_cost,
    same_loss,
    tokens_that_pay,
)

LOSS_LAWS = [law for law in PLANNERS.values() if isinstance(law, LossLaw)]


@pytest.mark.parametrize("law", LOSS_LAWS, ids=lambda law: law.about.name)
@pytest.mark.parametrize("flops", [1e15, 1e21, 5.76e23])
def test_the_closed_frontier_is_where_a_search_ends(law, flops):
    assert numeric_optimum(law.loss, flops).params == pytest.approx(
        law.optimum(flops).params, rel=1e-6
    )
    assert law.optimum(flops).flops == pytest.approx(flops)


@pytest.mark.parametrize("law", LOSS_LAWS, ids=lambda law: law.about.name)
def test_every_way_to_ask_for_a_point_of_the_frontier_gives_that_point(law):
    point = law.optimum(1e22)
    for other in (
        law.optimum_for_params(point.params),
        law.optimum_for_tokens(point.tokens),
        law.optimum_for_loss(law.loss(*point)),
    ):
        assert other == pytest.approx(point, rel=1e-9)


def test_the_gradient_is_that_of_the_loss():
    params, tokens = 3e9, 8e10
    by_params, by_tokens = BESIROGLU.gradient(params, tokens)
    for axis, slope in ((0, by_params), (1, by_tokens)):
        low, high = [params, tokens], [params, tokens]
        low[axis] *= 1 - 1e-5
        high[axis] *= 1 + 1e-5
        measured = (BESIROGLU.loss(*high) - BESIROGLU.loss(*low)) / (high[axis] - low[axis])
        assert slope == pytest.approx(measured, rel=1e-6)


def test_unrounded_constants_give_chinchillas_40b_where_rounded_ones_give_32b():
    assert CHINCHILLA_3.optimum(5.76e23).params == pytest.approx(40e9, rel=0.01)
    assert CHINCHILLA_3_ROUNDED.optimum(5.76e23).params == pytest.approx(32e9, rel=0.01)
    assert CHINCHILLA_3_ROUNDED not in PLANNERS.values()


def test_the_frontier_of_llama_3_gives_its_402b_at_its_budget():
    # Section 3.2.1: 402B on 16.55T; the digitised law gives these at 6ND = 4.0e25.
    point = LLAMA_3.optimum(6 * 402e9 * 16.55e12)
    assert point.tokens == pytest.approx(16.55e12, rel=0.005)
    assert CHINCHILLA_1.optimum(5.76e23).params == pytest.approx(67e9, rel=0.05)


def test_serving_10t_tokens_at_the_quality_of_30b_takes_13_6b():
    best = SARDANA.optimum_for_params(30e9)
    loss = SARDANA.loss(*best)
    demand = ServingDemand(output_tokens=1e13)
    chosen = least_cost(SARDANA, loss, demand)
    assert loss == pytest.approx(1.958, rel=1e-3)
    assert chosen.params == pytest.approx(13.613e9, rel=1e-3)
    assert chosen.tokens / best.tokens == pytest.approx(2.8448, rel=1e-3)
    assert 1 - demand.cost(chosen) / demand.cost(best) == pytest.approx(0.2798, rel=1e-3)


def test_serving_2t_tokens_at_the_quality_of_13b_takes_7b():
    best = SARDANA.optimum_for_params(13e9)
    demand = ServingDemand(output_tokens=2e12)
    chosen = least_cost(SARDANA, SARDANA.loss(*best), demand)
    saved = demand.cost(best) - demand.cost(chosen)
    assert chosen.params == pytest.approx(6.97e9, rel=1e-3)
    assert saved == pytest.approx(1.692e22, rel=1e-3)
    assert saved / demand.cost(best) == pytest.approx(0.1745, rel=1e-3)


@pytest.mark.parametrize("law", [BESIROGLU, CHINCHILLA_3])
@pytest.mark.parametrize("flops", [1e18, 1e19, 1e21, 1e23, 7e24])
def test_the_compute_optimal_model_is_best_where_nothing_is_served(law, flops):
    # Rounding made it pay from 68.7B served tokens on.
    assert demand_that_justifies(law, law.optimum(flops)) == 0.0
    assert break_even_demand(law, law.optimum(flops)) == math.inf


def test_a_choice_is_the_cheapest_at_the_demand_that_justifies_it_and_pays_from_less():
    llama_7b = Allocation(6.7e9, 1e12)
    demand = demand_that_justifies(CHINCHILLA_3, llama_7b)
    chosen = least_cost(
        CHINCHILLA_3, CHINCHILLA_3.loss(*llama_7b), ServingDemand(output_tokens=demand)
    )
    assert chosen.params == pytest.approx(6.7e9, rel=1e-4)
    assert 0 < break_even_demand(CHINCHILLA_3, llama_7b) < demand
    assert break_even_demand(CHINCHILLA_3, Allocation(175e9, 300e9)) == math.inf


@pytest.mark.parametrize("limit", [None, DataLimit(unique_tokens=5e10)])
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_a_size_is_trained_until_no_other_of_its_loss_is_cheaper(limit, weight):
    demand = ServingDemand(output_tokens=1e12, output_weight=weight)
    at = tokens_that_pay(BESIROGLU, 3e9, demand, limit)
    assert at.params == 3e9
    loss = limit.loss(BESIROGLU, *at) if limit else BESIROGLU.loss(*at)
    cheapest = least_cost(BESIROGLU, loss, demand, limit)
    assert cheapest.params == pytest.approx(3e9, rel=1e-3)
    # Which is the demand that justifies the choice, inverted.
    assert demand_that_justifies(BESIROGLU, at, limit) == pytest.approx(1e12 * weight, rel=1e-6)
    nothing = tokens_that_pay(BESIROGLU, 3e9, ServingDemand(), limit)
    best = limit.optimum_for_params(BESIROGLU, 3e9) if limit else BESIROGLU.optimum_for_params(3e9)
    assert nothing.tokens == pytest.approx(best.tokens)


@pytest.mark.parametrize("limit", [None, DataLimit(unique_tokens=5e9)])
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_a_budget_trains_the_model_that_is_cheapest_for_its_loss(limit, weight):
    demand = ServingDemand(output_tokens=1e12, output_weight=weight)
    at = cheapest_within(BESIROGLU, 1e21, demand, limit)
    assert at.flops == pytest.approx(1e21)
    loss = limit.loss(BESIROGLU, *at) if limit else BESIROGLU.loss(*at)
    cheapest = least_cost(BESIROGLU, loss, demand, limit)
    assert at.params == pytest.approx(cheapest.params, rel=1e-3)
    assert demand.cost(at) == pytest.approx(demand.cost(cheapest), rel=1e-6)


def test_models_of_one_loss_shrink_as_their_training_grows():
    loss = BESIROGLU.loss(*BESIROGLU.optimum(1e21))
    models = same_loss(BESIROGLU, loss, 5e21)
    assert all(BESIROGLU.loss(*at) == pytest.approx(loss) for at in models)
    assert models[0].flops == pytest.approx(1e21, rel=1e-3)
    assert 4e21 < models[-1].flops <= 5e21
    by_size = sorted(models, reverse=True)
    assert models == by_size == sorted(models, key=lambda at: at.flops)


def test_weights_of_phases_move_the_choice():
    loss = BESIROGLU.loss(*BESIROGLU.optimum_for_params(30e9))
    prompts = least_cost(BESIROGLU, loss, ServingDemand(input_tokens=1e13))
    dear = least_cost(BESIROGLU, loss, ServingDemand(output_tokens=1e13, output_weight=8.0))
    free = least_cost(BESIROGLU, loss, ServingDemand())
    assert dear.params < prompts.params < free.params
    assert free.params == pytest.approx(30e9, rel=1e-4)


@pytest.mark.parametrize(
    ("params", "tokens", "loss"),
    [(6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)],
)
def test_repeated_tokens_give_muennighoffs_own_losses(params, tokens, loss):
    assert DataLimit(unique_tokens=25e9).loss(MUENNIGHOFF, params, tokens) == pytest.approx(
        loss, rel=1e-7
    )


def test_25b_unique_tokens_at_1e22_are_read_nine_and_a_half_times():
    limit = DataLimit(unique_tokens=25e9)
    best = limit.optimum(MUENNIGHOFF, 1e22)
    assert best.params == pytest.approx(7.0262e9, rel=1e-3)
    assert best.tokens == pytest.approx(2.37209e11, rel=1e-3)
    assert limit.epochs(best.tokens) == pytest.approx(9.488, rel=1e-3)
    assert limit.loss(MUENNIGHOFF, *best) == pytest.approx(2.222129, rel=1e-6)


def test_data_that_suffice_change_nothing():
    plenty = DataLimit(unique_tokens=1e15)
    assert plenty.optimum(BESIROGLU, 1e21) == pytest.approx(BESIROGLU.optimum(1e21), rel=1e-9)
    by_size = plenty.optimum_for_params(BESIROGLU, 7e9)
    assert by_size == pytest.approx(BESIROGLU.optimum_for_params(7e9), rel=1e-9)


@pytest.mark.parametrize("flops", [1e19, 1e21, 1e22])
def test_with_data_that_run_out_the_best_split_is_where_a_search_ends(flops):
    limit = DataLimit(unique_tokens=3e9)
    best = limit.optimum(BESIROGLU, flops)
    searched = numeric_optimum(lambda N, D: limit.loss(BESIROGLU, N, D), flops)
    assert best.params == pytest.approx(searched.params, rel=1e-4)
    assert limit.optimum_for_params(BESIROGLU, best.params) == pytest.approx(best, rel=1e-6)


def test_the_elasticities_of_repeated_tokens_are_those_of_their_loss():
    limit = DataLimit(unique_tokens=3e9)
    for params, tokens in ((1e8, 1e9), (5e8, 2e10), (2e10, 2e10)):
        by_params, by_tokens = limit.elasticities(BESIROGLU, params, tokens)
        up, down = 1 + 1e-5, 1 - 1e-5
        measured = (
            limit.loss(BESIROGLU, params * down, tokens)
            - limit.loss(BESIROGLU, params * up, tokens),
            limit.loss(BESIROGLU, params, tokens * down)
            - limit.loss(BESIROGLU, params, tokens * up),
        )
        assert (by_params, by_tokens) == pytest.approx([m / 2e-5 for m in measured], rel=1e-5)


def test_repetition_extrapolates_beyond_its_unique_tokens_and_epochs():
    limit = DataLimit(unique_tokens=1e9)
    assert limit.extrapolates(5e11) == ()
    assert limit.extrapolates(5.1e11) == ("epochs",)
    assert DataLimit(unique_tokens=1e7).extrapolates(2e7) == ("unique_tokens",)
    # What is read once rests on no law of repetition.
    assert DataLimit(unique_tokens=1e7).extrapolates(1e7) == ()


def test_llama_3s_tokens_are_those_of_its_frontier():
    low, high = LLAMA_3.about.tokens_range
    assert low == pytest.approx(LLAMA_3.optimum(6e18).tokens)
    assert high == pytest.approx(LLAMA_3.optimum(1e22).tokens)
    assert "tokens" in LLAMA_3.about.extrapolates(Allocation(7e9, 1.7e12))


def test_points_beyond_a_laws_data_are_named():
    about = CHINCHILLA_3.about
    assert about.extrapolates(Allocation(1e9, 20e9)) == ()
    assert about.extrapolates(Allocation(65e9, 1.4e12)) == ("params", "tokens", "flops")


def test_a_misspelt_law_and_an_unreachable_loss_are_refused():
    with pytest.raises(ValueError, match=r"--law='chinchila-3' .* Did you mean chinchilla-3"):
        find_law("chinchila-3")
    with pytest.raises(ValueError, match=r"target_loss=1\.5 must be above 1\.8169"):
        BESIROGLU.optimum_for_loss(1.5)


def test_tokens_that_reach_a_loss_give_it_back_and_no_repetition_reaches_all():
    limit, params = DataLimit(unique_tokens=25e9), 5e9
    for tokens in (1e10, 25e9, 3e11):
        loss = limit.loss(MUENNIGHOFF, params, tokens)
        assert limit.tokens_for(MUENNIGHOFF, params, loss) == pytest.approx(tokens, rel=1e-9)
    # Twice what 25B tokens are worth when read forever.
    worth = 2 * 25e9 * (1 + limit.repetition.token_decay)
    beyond = MUENNIGHOFF.loss(limit.effective(MUENNIGHOFF, params, 1e9).params, worth)
    assert limit.tokens_for(MUENNIGHOFF, params, beyond) == math.inf
    nearly = MUENNIGHOFF.loss(limit.effective(MUENNIGHOFF, params, 1e9).params, 0.8 * worth)
    assert limit.tokens_for(MUENNIGHOFF, params, nearly) == math.inf
