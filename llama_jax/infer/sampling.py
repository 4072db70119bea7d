"""How the next token is drawn from a model's logits."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Which tokens may be drawn, and how boldly; the defaults are the model's own distribution.

    Attributes:
        temperature: Divides the logits; 0 always takes the most probable token.
        top_k: Only this many most probable tokens may be drawn; 0 allows all.
        top_p: Only the fewest tokens whose probabilities reach this sum may be drawn, after
            temperature and `top_k`; 1 allows all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"sampling.temperature={self.temperature} must be zero or more; 0 always takes "
                "the most probable token."
            )
        if self.top_k < 0:
            raise ValueError(
                f"sampling.top_k={self.top_k} must be zero or more; 0 allows all tokens."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p={self.top_p} must be in (0, 1]; 1 allows all tokens.")


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, "B"], sampling: Sampling
) -> Int[Array, "B"]:
    """Draws one token a row; what a row gets depends on its own logits and key alone.

    Args:
        logits: Unnormalised log-probabilities; a token at -inf is never drawn.
        keys: One random key a row; not read where `sampling.temperature` is 0.
        sampling: What may be drawn; fixed at compile time.

    Sources: top-k, Fan et al. 2018 (arXiv:1805.04833), section 5.4; top-p ("nucleus"),
    Holtzman et al. 2020 (arXiv:1904.09751), section 3.1. Among tokens of equal probability at
    the edge of either set, those of lower id are kept.
    """
    logits = logits.astype(jnp.float32)
    if sampling.temperature == 0 or sampling.top_k == 1:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # Relative to the largest, so that a small temperature can overflow downwards only.
    logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / sampling.temperature
    draw = jax.vmap(jax.random.categorical)
    vocab_size = logits.shape[-1]
    num_candidates = min(sampling.top_k or vocab_size, vocab_size)
    if num_candidates == vocab_size and sampling.top_p == 1:
        return draw(keys, logits).astype(jnp.int32)
    candidates, ids = jax.lax.top_k(logits, num_candidates)
    candidates = jnp.where(_in_nucleus(candidates, sampling.top_p), candidates, -jnp.inf)
    drawn = draw(keys, candidates)
    return jnp.take_along_axis(ids, drawn[:, None], axis=-1)[:, 0].astype(jnp.int32)


def _in_nucleus(sorted_logits: Float[Array, "B C"], top_p: float) -> Array:
    probabilities = jax.nn.softmax(sorted_logits, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # The first is always in: nothing is before it.
    return before < top_p if top_p < 1 else jnp.ones_like(before, bool)
