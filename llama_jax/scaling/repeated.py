"""What repeated tokens, and parameters beyond what the data can feed, are worth."""

import dataclasses
import math

from llama_jax.scaling.laws import Allocation, LossLaw, Repetition, crossing

# Muennighoff et al. 2023 (arXiv:2305.16264), appendix A; the constants unrounded, of
# huggingface/datablations. Runs in which more epochs or parameters did harm were left out there.
MUENNIGHOFF_REPETITION = Repetition(
    source="Muennighoff et al. 2023 (arXiv:2305.16264)",
    token_decay=15.387756,
    param_decay=5.309743,
    unique_range=(0.1e9, 178e9),
    epochs_range=(1.0, 500.0),
)
# Nats per token that nobody can tell from none.
SAME_LOSS = 1e-4
_ROUNDING = 1e-12
# Tokens and parameters between which a search looks, in logarithms.
_LEAST_LOG, _MOST_LOG = 0.0, 160.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataLimit:
    """So many tokens exist; reading them again is worth less each time.

    Source: Muennighoff et al. 2023 (arXiv:2305.16264), section 3.1.

    Attributes:
        unique_tokens: Tokens that exist, `U_D`.
        repetition: How fast repeated ones lose their worth.
    """

    unique_tokens: float
    repetition: Repetition = MUENNIGHOFF_REPETITION

    def epochs(self, tokens: float) -> float:
        """How often each token is read."""
        return tokens / self.unique_tokens

    def extrapolates(self, tokens: float) -> tuple[str, ...]:
        """Which of "unique_tokens" and "epochs" lie outside the data of the repetition.

        None where no token is read twice.
        """
        if (epochs := self.epochs(tokens)) <= 1:
            return ()
        ranges = (
            ("unique_tokens", self.unique_tokens, self.repetition.unique_range),
            ("epochs", epochs, self.repetition.epochs_range),
        )
        return tuple(name for name, value, (low, high) in ranges if not low <= value <= high)

    def effective(self, law: LossLaw, params: float, tokens: float) -> Allocation:
        """As many parameters and fresh tokens as are worth the same."""
        return Allocation(
            _worth(params, self._fed(law, params), self.repetition.param_decay),
            _worth(tokens, min(tokens, self.unique_tokens), self.repetition.token_decay),
        )

    def loss(self, law: LossLaw, params: float, tokens: float) -> float:
        """Nats per token of a law whose tokens are repeated."""
        return law.loss(*self.effective(law, params, tokens))

    def elasticities(self, law: LossLaw, params: float, tokens: float) -> tuple[float, float]:
        """What the loss falls by where parameters, and where tokens, grow by a small share of 1."""
        worth = self.effective(law, params, tokens)
        by_params, by_tokens = law.elasticities(*worth)
        fed, unique = self._fed(law, params), min(tokens, self.unique_tokens)
        new_params = math.exp(-(params / fed - 1) / self.repetition.param_decay)
        new_tokens = math.exp(-(tokens / unique - 1) / self.repetition.token_decay)
        return (
            by_params * new_params * params / worth.params,
            by_tokens * new_tokens * tokens / worth.tokens,
        )

    def tokens_for(self, law: LossLaw, params: float, loss: float) -> float:
        """Tokens, repetitions included, that reach a loss; infinite where none do."""
        decay = self.repetition.token_decay
        fresh = law.tokens_for(self.effective(law, params, self.unique_tokens).params, loss)
        if fresh <= self.unique_tokens:
            return fresh
        spent = (fresh / self.unique_tokens - 1) / decay
        if spent > 1 + _ROUNDING:
            return math.inf
        # All that repetition can give is reached, but for rounding, after some hundred epochs.
        return self.unique_tokens * (1 - decay * math.log1p(-min(spent, 1 - _ROUNDING)))

    def optimum(self, law: LossLaw, flops: float) -> Allocation:
        """Least loss for so many training FLOPs; found by halving, for no closed form is known."""

        def tokens_count_more(log_params: float) -> bool:
            params = math.exp(log_params)
            by_params, by_tokens = self.elasticities(law, params, flops / 6 / params)
            return by_tokens >= by_params

        params = math.exp(crossing(tokens_count_more, _LEAST_LOG, math.log(flops / 6)))
        return Allocation(params, flops / 6 / params)

    def optimum_for_params(self, law: LossLaw, params: float) -> Allocation:
        """The compute at which so many parameters are the best choice."""

        def params_count_more(log_tokens: float) -> bool:
            by_params, by_tokens = self.elasticities(law, params, math.exp(log_tokens))
            return by_params >= by_tokens

        return Allocation(params, math.exp(crossing(params_count_more, _LEAST_LOG, _MOST_LOG)))

    def _fed(self, law: LossLaw, params: float) -> float:
        """Parameters that the unique tokens can feed, `U_N`."""
        return min(params, law.optimum_for_tokens(self.unique_tokens).params)


def _worth(amount: float, base: float, decay: float) -> float:
    return base + base * decay * (1 - math.exp(-(amount / base - 1) / decay))
