"""Plans for models that will be served: a smaller model, trained for longer."""

import dataclasses
import math

from llama_jax.scaling.laws import Allocation, LossLaw, crossing, minimise
from llama_jax.scaling.repeated import DataLimit

_FRONTIER_POINTS = 200
# How much smaller, or longer trained, than the best to train a served model is at most, in logs.
_FARTHEST_LOG = math.log(1e12)
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServingDemand:
    """Tokens that will be served over a model's life.

    With weights of 1 the cost is FLOPs; with dollars per FLOP in each phase it is money, in which
    the utilisation of each phase counts too.

    Source: Sardana et al. 2024 (arXiv:2401.00448), sections 2 and 3.

    Attributes:
        input_tokens: Read in prompts.
        output_tokens: Written.
        train_weight: Cost of a training FLOP.
        input_weight: Cost of a FLOP of prefill.
        output_weight: Cost of a FLOP of decoding.
    """

    input_tokens: float = 0.0
    output_tokens: float = 0.0
    train_weight: float = 1.0
    input_weight: float = 1.0
    output_weight: float = 1.0

    def serving_cost(self, params: float) -> float:
        """2N for each token served."""
        weighted = self.input_tokens * self.input_weight + self.output_tokens * self.output_weight
        return 2.0 * params * weighted

    def training_cost(self, at: Allocation) -> float:
        """6ND."""
        return at.flops * self.train_weight

    def cost(self, at: Allocation) -> float:
        """Training and serving together."""
        return self.training_cost(at) + self.serving_cost(at.params)


def least_cost(
    law: LossLaw, loss: float, demand: ServingDemand, limit: DataLimit | None = None
) -> Allocation:
    """The cheapest model of a given loss, trained and served.

    Args:
        law: Of the loss.
        loss: To reach, nats per token.
        demand: What is served, and what each phase costs.
        limit: Of the data; tokens are all different without one.

    Raises:
        ValueError: If no model reaches the loss, of this law or of these data.
    """
    law.check_reachable(loss)
    fewest = _fewest_params(law, loss)

    def at(log_params: float) -> float:
        params = math.exp(log_params)
        return demand.cost(Allocation(params, _tokens_for(law, params, loss, limit)))

    # Fewer parameters than `fewest` never reach the loss, and far more only cost more.
    params = math.exp(minimise(at, math.log(fewest * (1 + 1e-9)), math.log(fewest * 1e4)))
    tokens = _tokens_for(law, params, loss, limit)
    if not tokens < math.inf:
        unique = limit.unique_tokens if limit else math.inf
        raise ValueError(
            f"a loss of {loss:.6g} is not reached with {unique:,.0f} unique tokens, however often "
            "they are read; more of them are needed, or a higher loss."
        )
    return Allocation(params, tokens)


def cheapest_to_train(law: LossLaw, loss: float, limit: DataLimit | None = None) -> Allocation:
    """The model of a given loss that takes the least compute.

    Raises:
        ValueError: If no model reaches the loss, of this law or of these data.
    """
    return least_cost(law, loss, ServingDemand(), limit) if limit else law.optimum_for_loss(loss)


def cheapest_within(
    law: LossLaw, flops: float, demand: ServingDemand, limit: DataLimit | None = None
) -> Allocation:
    """The model of a training budget that no other of its loss undercuts, trained and served.

    What `least_cost` is for a loss; the loss is here the least for which `least_cost` keeps to the
    budget. Along `D = C/6N` the demand that justifies a model rises as N falls.
    """
    best = limit.optimum(law, flops) if limit else law.optimum(flops)

    def too_small(log_shrunk: float) -> bool:
        params = best.params * math.exp(-log_shrunk)
        return not _justified(law, Allocation(params, flops / 6.0 / params), demand, limit)

    params = best.params * math.exp(-crossing(too_small, 0.0, _FARTHEST_LOG))
    return Allocation(params, flops / 6.0 / params)


def tokens_that_pay(
    law: LossLaw, params: float, demand: ServingDemand, limit: DataLimit | None = None
) -> Allocation:
    """So many parameters on the tokens at which no other model of their loss is cheaper.

    LLaMA's question: of a size that is wanted, how long is it worth training for this demand? It is
    `demand_that_justifies`, inverted.
    """
    best = limit.optimum_for_params(law, params) if limit else law.optimum_for_params(params)

    def too_long(log_grown: float) -> bool:
        at = Allocation(params, best.tokens * math.exp(log_grown))
        return not _justified(law, at, demand, limit)

    return Allocation(params, best.tokens * math.exp(crossing(too_long, 0.0, _FARTHEST_LOG)))


def same_loss(
    law: LossLaw, loss: float, most_flops: float, limit: DataLimit | None = None
) -> list[Allocation]:
    """Models of one loss, from the least to train to those that cost so many FLOPs to train.

    The frontier between the cost of training and that of serving: each has fewer parameters than
    the one before, and takes more training.

    Raises:
        ValueError: If no model reaches the loss.
    """
    best = cheapest_to_train(law, loss, limit)

    def shrunk(log_shrunk: float) -> Allocation:
        params = best.params * math.exp(-log_shrunk)
        return Allocation(params, _tokens_for(law, params, loss, limit))

    # From some size on the loss takes more than that, or is not reached.
    end = crossing(lambda log: shrunk(log).flops > most_flops, 0.0, _FARTHEST_LOG)
    last = _FRONTIER_POINTS - 1
    # A hair before the end, whose own side of it is rounding.
    return [shrunk(end * (1 - 1e-9) * i / last) for i in range(_FRONTIER_POINTS)]


def _fewest_params(law: LossLaw, loss: float) -> float:
    return (law.A / (loss - law.E)) ** (1 / law.alpha)


def _tokens_for(law: LossLaw, params: float, loss: float, limit: DataLimit | None) -> float:
    return limit.tokens_for(law, params, loss) if limit else law.tokens_for(params, loss)


def _elasticities(law: LossLaw, at: Allocation, limit: DataLimit | None) -> tuple[float, float]:
    return limit.elasticities(law, *at) if limit else law.elasticities(*at)


def _justified(
    law: LossLaw, at: Allocation, demand: ServingDemand, limit: DataLimit | None
) -> bool:
    """Whether the demand is as large as a model needs to be the cheapest of its loss."""
    by_params, by_tokens = _elasticities(law, at, limit)
    served = demand.serving_cost(1.0) / 2.0 / demand.train_weight
    return 3.0 * at.tokens * (by_params - by_tokens) < served * by_tokens


def demand_that_justifies(
    law: LossLaw, chosen: Allocation, limit: DataLimit | None = None
) -> float:
    """Served tokens at which a choice is the cheapest of its loss; negative if never.

    At fixed loss `dD/dN = -L_N / L_D`; the total `6ND + 2N T` is least where its derivative is 0.
    A law's own optimum is that where nothing is served, whatever rounding says.
    """
    by_params, by_tokens = _elasticities(law, chosen, limit)
    if not by_tokens:
        return math.inf
    gain = by_params / by_tokens - 1.0
    return 0.0 if abs(gain) < _ROUNDING else 3.0 * chosen.tokens * gain


def break_even_demand(law: LossLaw, chosen: Allocation, limit: DataLimit | None = None) -> float:
    """Served tokens from which a choice costs less than the compute-optimal model of its loss.

    Infinite where the choice has no fewer parameters than that model.
    """
    loss = limit.loss(law, *chosen) if limit else law.loss(*chosen)
    best = cheapest_to_train(law, loss, limit)
    if chosen.params > best.params * (1 - _ROUNDING):
        return math.inf
    return (chosen.flops - best.flops) / (2.0 * (best.params - chosen.params))
