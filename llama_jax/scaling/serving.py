"""Plans for models that will be served: a smaller model, trained for longer."""

import dataclasses
import math

from llama_jax.scaling.laws import Allocation, LossLaw, minimise
from llama_jax.scaling.repeated import DataLimit


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

    def cost(self, at: Allocation) -> float:
        """Training and serving together."""
        return at.flops * self.train_weight + self.serving_cost(at.params)


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
    fewest = (law.A / (loss - law.E)) ** (1 / law.alpha)

    def tokens_for(params: float) -> float:
        return limit.tokens_for(law, params, loss) if limit else law.tokens_for(params, loss)

    def at(log_params: float) -> float:
        params = math.exp(log_params)
        return demand.cost(Allocation(params, tokens_for(params)))

    # Fewer parameters than `fewest` never reach the loss, and far more only cost more.
    params = math.exp(minimise(at, math.log(fewest * (1 + 1e-9)), math.log(fewest * 1e4)))
    tokens = tokens_for(params)
    if not tokens < math.inf:
        unique = limit.unique_tokens if limit else math.inf
        raise ValueError(
            f"loss={loss} is not reached with {unique:,.0f} unique tokens, however often they are "
            "read; more of them are needed, or a higher loss."
        )
    return Allocation(params, tokens)


def demand_that_justifies(law: LossLaw, chosen: Allocation) -> float:
    """Served tokens at which a choice is the cheapest of its loss; negative if never.

    At fixed loss `dD/dN = -L_N / L_D`; the total `6ND + 2N T` is least where its derivative is 0.
    """
    by_params, by_tokens = law.gradient(*chosen)
    return 3.0 * (chosen.params * by_params / by_tokens - chosen.tokens)


def break_even_demand(law: LossLaw, chosen: Allocation) -> float:
    """Served tokens from which a choice costs less than the compute-optimal model of its loss.

    Infinite where the choice has no fewer parameters than that model.
    """
    best = law.optimum_for_loss(law.loss(*chosen))
    if chosen.params >= best.params:
        return math.inf
    return (chosen.flops - best.flops) / (2.0 * (best.params - chosen.params))
