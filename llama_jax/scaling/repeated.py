"""What repeated tokens, and parameters beyond what the data can feed, are worth."""

import dataclasses
import math

from llama_jax.scaling.laws import Allocation, LossLaw, numeric_optimum


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataLimit:
    """So many tokens exist; reading them again is worth less each time.

    Source: Muennighoff et al. 2023 (arXiv:2305.16264), section 3.1; constants of
    huggingface/datablations, fitted up to 178B unique tokens.

    Attributes:
        unique_tokens: Tokens that exist, `U_D`.
        token_decay: Repetitions after which a token's worth has fallen to 1/e, `R_D*`.
        param_decay: The same for parameters beyond those that are best for the unique tokens.
    """

    unique_tokens: float
    token_decay: float = 15.387756
    param_decay: float = 5.309743

    def epochs(self, tokens: float) -> float:
        """How often each token is read."""
        return tokens / self.unique_tokens

    def effective(self, law: LossLaw, params: float, tokens: float) -> Allocation:
        """As many parameters and fresh tokens as are worth the same."""
        base = min(params, law.optimum_for_tokens(self.unique_tokens).params)
        return Allocation(
            _worth(params, base, self.param_decay),
            _worth(tokens, min(tokens, self.unique_tokens), self.token_decay),
        )

    def loss(self, law: LossLaw, params: float, tokens: float) -> float:
        """Nats per token of a law whose tokens are repeated."""
        return law.loss(*self.effective(law, params, tokens))

    def tokens_for(self, law: LossLaw, params: float, loss: float) -> float:
        """Tokens, repetitions included, that reach a loss; infinite where none do."""
        fresh = law.tokens_for(self.effective(law, params, self.unique_tokens).params, loss)
        if fresh <= self.unique_tokens:
            return fresh
        spent = (fresh / self.unique_tokens - 1) / self.token_decay
        if spent >= 1:
            return math.inf
        return self.unique_tokens * (1 - self.token_decay * math.log1p(-spent))

    def optimum(self, law: LossLaw, flops: float) -> Allocation:
        """Least loss for so many training FLOPs; found numerically, for no closed form is known."""
        return numeric_optimum(lambda params, tokens: self.loss(law, params, tokens), flops)


def _worth(amount: float, base: float, decay: float) -> float:
    repeats = max(amount / base - 1, 0.0)
    return base + base * decay * (1 - math.exp(-repeats / decay))
