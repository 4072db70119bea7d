"""Laws of loss over parameters and tokens, with the best split of compute in closed form.

A law says nothing by itself about how its parameters and FLOPs were counted; `counting` does. The
compute of `N` parameters on `D` tokens is `6 N D` here, the convention in which all of these laws
were fitted.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple, Self

_GOLDEN = (math.sqrt(5) - 1) / 2
# Nats per token below which no text can be told from none: such a limit was not seen by the fit.
NO_LIMIT = 1e-3


class Allocation(NamedTuple):
    """How many parameters on how many tokens."""

    params: float
    tokens: float

    @property
    def flops(self) -> float:
        """Training FLOPs under the convention 6ND."""
        return 6.0 * self.params * self.tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a law is from, and how far its data reach.

    Attributes:
        name: As `--law` calls it.
        source: Paper or repository, and place in it.
        counting: What counts as parameters, and as FLOPs.
        params_range: Fewest and most parameters of the runs fitted.
        tokens_range: Fewest and most tokens of the runs fitted.
        flops_range: Least and most compute of the runs fitted.
        note: What is known to be wrong or missing.
    """

    name: str
    source: str
    counting: str
    params_range: tuple[float, float]
    tokens_range: tuple[float, float]
    flops_range: tuple[float, float]
    note: str = ""

    def extrapolates(self, at: Allocation) -> tuple[str, ...]:
        """Which of "params", "tokens" and "flops" lie outside the data of the law."""
        ranges = (
            ("params", at.params, self.params_range),
            ("tokens", at.tokens, self.tokens_range),
            ("flops", at.flops, self.flops_range),
        )
        return tuple(name for name, value, (low, high) in ranges if not low <= value <= high)

    def times_above(self, at: Allocation) -> float:
        """How many times parameters or tokens exceed the data of the law; 1 is inside, or below."""
        return max(at.params / self.params_range[1], at.tokens / self.tokens_range[1], 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """How fast repeated tokens, and parameters that they cannot feed, lose their worth.

    Attributes:
        source: Paper, or the table that it was fitted to.
        token_decay: Repetitions after which a token's worth has fallen to 1/e, `R_D*`.
        param_decay: The same for parameters beyond those that are best for the unique tokens,
            `R_N*`.
        unique_range: Fewest and most unique tokens of the runs fitted.
        epochs_range: Fewest and most epochs of them.
    """

    source: str
    token_decay: float
    param_decay: float
    unique_range: tuple[float, float]
    epochs_range: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("token_decay", "param_decay"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"law.repetition.{name}={value} must be positive and finite.")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LossLaw:
    """`L(N, D) = E + A / N^alpha + B / D^beta`, in nats per token.

    Source: Hoffmann et al. 2022 (arXiv:2203.15556), section 3.3; its frontier is equation 4.

    Attributes:
        about: Source, counting and range.
        E: Loss that neither parameters nor tokens lower.
        A: Numerator of the parameters' term.
        B: Numerator of the tokens' term.
        alpha: Exponent of the parameters.
        beta: Exponent of the tokens.
        covariance: Of (log A, log B, log E, alpha, beta) over bootstrap resamples; empty where
            none is known.
        exponent_interval: Published interval of the frontier's exponent of parameters; (0, 0)
            where there is none.
        exponent_level: Of that interval: 0.8 is 10% to 90%.
        repetition: Where the law was fitted with one; None where it knows fresh tokens alone.
    """

    about: Provenance
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    covariance: tuple[tuple[float, ...], ...] = ()
    exponent_interval: tuple[float, float] = (0.0, 0.0)
    exponent_level: float = 0.95
    repetition: Repetition | None = None

    def __post_init__(self) -> None:
        for name in ("E", "A", "B", "alpha", "beta"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(
                    f"law.{name}={value} must be positive: else more parameters or tokens would "
                    "not lower the loss towards a limit above zero."
                )

    def loss(self, params: float, tokens: float) -> float:
        """Nats per token."""
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta

    @property
    def has_limit(self) -> bool:
        """Whether the loss has a limit; without one the law is good between its runs alone."""
        return self.E >= NO_LIMIT

    def gradient(self, params: float, tokens: float) -> tuple[float, float]:
        """Derivatives of the loss by parameters and by tokens, both negative."""
        by_params, by_tokens = self.elasticities(params, tokens)
        return -by_params / params, -by_tokens / tokens

    def elasticities(self, params: float, tokens: float) -> tuple[float, float]:
        """What the loss falls by where parameters, and where tokens, grow by a small share of 1."""
        return (
            self.alpha * self.A * params**-self.alpha,
            self.beta * self.B * tokens**-self.beta,
        )

    @property
    def params_exponent(self) -> float:
        """Of compute, in the best number of parameters."""
        return self.beta / (self.alpha + self.beta)

    @property
    def balance(self) -> float:
        """`G`: the best split is `N = G (C/6)^a` and `D = (C/6)^(1-a) / G`."""
        ratio = self.alpha * self.A / (self.beta * self.B)
        return ratio ** (1 / (self.alpha + self.beta))

    def optimum(self, flops: float) -> Allocation:
        """Least loss for so many training FLOPs."""
        params = self.balance * (flops / 6) ** self.params_exponent
        return Allocation(params, flops / 6 / params)

    def optimum_for_params(self, params: float) -> Allocation:
        """The compute at which so many parameters are the best choice."""
        product = (params / self.balance) ** (1 / self.params_exponent)
        return Allocation(params, product / params)

    def optimum_for_tokens(self, tokens: float) -> Allocation:
        """The compute at which so many tokens are the best choice."""
        product = (tokens * self.balance) ** (1 / (1 - self.params_exponent))
        return Allocation(product / tokens, tokens)

    def optimum_for_loss(self, loss: float) -> Allocation:
        """Least training compute that reaches a loss.

        Raises:
            ValueError: If the loss is not above the law's limit `E`.
        """
        self.check_reachable(loss)
        # On the frontier alpha A N^-alpha = beta B D^-beta: both terms are one share of loss - E.
        term = (loss - self.E) * self.beta / (self.alpha + self.beta)
        return self.optimum_for_params((self.A / term) ** (1 / self.alpha))

    def tokens_for(self, params: float, loss: float) -> float:
        """Tokens on which so many parameters reach a loss; infinite where they never do."""
        left = loss - self.E - self.A * params**-self.alpha
        return (self.B / left) ** (1 / self.beta) if left > 0 else math.inf

    def check_reachable(self, loss: float) -> None:
        """Raises ValueError where no model of any size reaches the loss."""
        if not self.E < loss < math.inf:
            raise ValueError(
                f"target_loss={loss} must be above {self.E:.4f}, the limit E of the law "
                f"{self.about.name!r}: no model of any size goes below it."
            )

    def vector(self) -> tuple[float, ...]:
        """(log A, log B, log E, alpha, beta), in which `covariance` is given."""
        return math.log(self.A), math.log(self.B), math.log(self.E), self.alpha, self.beta

    def with_vector(self, vector: tuple[float, ...]) -> Self:
        """The same law with other constants."""
        A, B, E = (math.exp(value) for value in vector[:3])
        return dataclasses.replace(self, A=A, B=B, E=E, alpha=vector[3], beta=vector[4])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FrontierLaw:
    """`N = coefficient * C^exponent`, with C = 6ND: the best split, without a loss.

    Attributes:
        about: Source, counting and range.
        coefficient: Parameters at one FLOP.
        exponent: Of compute.
        exponent_interval: Of the bootstrap, or published; (0, 0) where there is none.
        exponent_level: Of that interval: 0.8 is 10% to 90%.
    """

    about: Provenance
    coefficient: float
    exponent: float
    exponent_interval: tuple[float, float] = (0.0, 0.0)
    exponent_level: float = 0.95

    def __post_init__(self) -> None:
        for name in ("coefficient", "exponent"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"law.{name}={value} must be positive and finite.")

    @property
    def params_exponent(self) -> float:
        """Of compute, in the best number of parameters."""
        return self.exponent

    def optimum(self, flops: float) -> Allocation:
        """Best split of so many training FLOPs."""
        params = self.coefficient * flops**self.exponent
        return Allocation(params, flops / 6 / params)

    def optimum_for_params(self, params: float) -> Allocation:
        """The compute at which so many parameters are the best choice."""
        flops = (params / self.coefficient) ** (1 / self.exponent)
        return Allocation(params, flops / 6 / params)


Law = LossLaw | FrontierLaw


def crossing(reached: Callable[[float], bool], low: float, high: float) -> float:
    """Least x in [low, high] from which on something holds, by halving; `high` if it never does."""
    while high - low > 1e-13 * max(1.0, abs(high)):
        middle = (low + high) / 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def minimise(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with a single valley in [low, high] is least, by golden sections.

    Where it is infinite, the valley is further up.
    """
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_inner, at_outer = value(inner), value(outer)
    while high - low > 1e-10 * max(1.0, abs(high)):
        if at_inner <= at_outer and at_inner < math.inf:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - _GOLDEN * (high - low)
            at_inner = value(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + _GOLDEN * (high - low)
            at_outer = value(outer)
    return inner if at_inner <= at_outer else outer


def numeric_optimum(loss: Callable[[float, float], float], flops: float) -> Allocation:
    """Least loss for so many training FLOPs, found from values of the loss alone."""

    def at(log_params: float) -> float:
        params = math.exp(log_params)
        return loss(params, flops / 6 / params)

    params = math.exp(minimise(at, 0.0, math.log(flops / 6)))
    return Allocation(params, flops / 6 / params)
