"""Batch size and learning rate from published laws, each with the range of its data."""

import dataclasses

from llama_jax.scaling.laws import Allocation


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """What one law says.

    Attributes:
        law: Its name.
        batch_tokens: Tokens of an update.
        peak_lr: Learning rate; 0 where the law gives none.
        extrapolates: Which inputs lie outside the law's data.
        source: Paper.
    """

    law: str
    batch_tokens: float
    peak_lr: float
    extrapolates: tuple[str, ...]
    source: str


def step_law(non_vocabulary_params: float, tokens: float) -> Suggestion:
    """Learning rate and batch from parameters without vocabulary, and tokens.

    Source: Li et al. 2025 (arXiv:2503.04715); the range is that of its dense grids
    (step-law/steplaw, dense_lr_bs_loss.csv).
    """
    N, D = non_vocabulary_params, tokens
    return Suggestion(
        law="step-law",
        batch_tokens=0.58 * D**0.571,
        peak_lr=1.79 * N**-0.713 * D**0.307,
        extrapolates=_outside(params=(N, 2.1e8, 1.08e9), tokens=(D, 4e9, 5.7e10)),
        source="Li et al. 2025 (arXiv:2503.04715)",
    )


def deepseek(flops: float) -> Suggestion:
    """Learning rate and batch from compute.

    Source: DeepSeek-AI 2024 (arXiv:2401.02954), section 3.1. Its compute counts attention and
    leaves the vocabulary out; 6ND stands in for it here.
    """
    return Suggestion(
        law="deepseek",
        batch_tokens=0.2920 * flops**0.3271,
        peak_lr=0.3118 * flops**-0.1250,
        extrapolates=_outside(flops=(flops, 1e17, 2e19)),
        source="DeepSeek-AI 2024 (arXiv:2401.02954)",
    )


def critical_batch(params: float) -> Suggestion:
    """The batch from which twice as many tokens no longer save half of the steps.

    Source: Zhang et al. 2024 (arXiv:2410.21676): 20% more steps than without a limit, rows of 512
    tokens, models trained on 20 tokens a parameter.
    """
    return Suggestion(
        law="critical-batch",
        batch_tokens=512 * 93.197 * (params / 1e6) ** 0.468,
        peak_lr=0.0,
        extrapolates=_outside(params=(params, 85e6, 1.2e9)),
        source="Zhang et al. 2024 (arXiv:2410.21676)",
    )


def suggestions(at: Allocation, non_vocabulary_params: float) -> tuple[Suggestion, ...]:
    """What each law says of one run: Step-Law, DeepSeek, the critical batch."""
    return (
        step_law(non_vocabulary_params, at.tokens),
        deepseek(at.flops),
        critical_batch(at.params),
    )


def choose_rate(advice: tuple[Suggestion, ...]) -> Suggestion:
    """Whose learning rate is taken: Step-Law's on its grids, elsewhere the lower one.

    Far beyond its grids Step-Law's rises with the tokens without end, to what no run has survived;
    DeepSeek's, beyond its own data too, falls with compute. Of two guesses the lower one trains.
    """
    step, *others = advice
    if not step.extrapolates:
        return step
    return min((step, *(law for law in others if law.peak_lr)), key=lambda law: law.peak_lr)


def _outside(**inputs: tuple[float, float, float]) -> tuple[str, ...]:
    return tuple(name for name, (value, low, high) in inputs.items() if not low <= value <= high)
