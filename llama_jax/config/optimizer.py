"""Optimizers and learning-rate schedules; a recipe chooses one of each."""

import dataclasses
from typing import Literal

from llama_jax.config import checks

STATE_DTYPES = ("float32", "bfloat16", "int8")
_SLOWEST_BETA_IN_BFLOAT16 = 0.99


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Defaults are LLaMA's (Touvron et al. 2023, section 2.3; eps from LLaMA-2, section 2.2).

    Attributes:
        peak_lr: Learning rate at the end of the warm-up.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: Multiplied by the learning rate; matrices only, never norms.
        clip_norm: Largest global norm of a gradient; larger ones are scaled down to it.
        state_dtype: Of both moments between updates; they are computed in float32. "int8" is for
            the matrices of the blocks: tables and norms stay in float32.
    """

    peak_lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    state_dtype: Literal["float32", "bfloat16", "int8"] = "float32"

    def __post_init__(self) -> None:
        checks.positive("optimizer", peak_lr=self.peak_lr, eps=self.eps, clip_norm=self.clip_norm)
        checks.not_negative("optimizer", weight_decay=self.weight_decay)
        checks.one_of("optimizer", STATE_DTYPES, state_dtype=self.state_dtype)
        _check_betas(beta1=self.beta1, beta2=self.beta2)
        for name, beta in {"beta1": self.beta1, "beta2": self.beta2}.items():
            if self.state_dtype == "bfloat16" and beta > _SLOWEST_BETA_IN_BFLOAT16:
                raise ValueError(
                    f"optimizer.{name}={beta} must be at most {_SLOWEST_BETA_IN_BFLOAT16} with "
                    "optimizer.state_dtype='bfloat16': a slower moment fades by less than rounding "
                    "takes back, up to 1/256 an update. Use 'int8' or 'float32'."
                )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Muon:
    """Orthogonalised momentum for hidden matrices, AdamW for the rest (Jordan et al. 2024).

    Updates are scaled to AdamW's size, so that its learning rates and decay carry over
    (Liu et al. 2025, arXiv:2502.16982, section 2.2).

    Attributes:
        peak_lr: Learning rate at the end of the warm-up, for all parameters.
        momentum: Decay of the momentum of hidden matrices, in [0, 1).
        newton_schulz_steps: Iterations of the orthogonalisation.
        beta1: AdamW's first decay, for embeddings, output and norms.
        beta2: AdamW's second decay.
        eps: AdamW's epsilon.
        weight_decay: Multiplied by the learning rate; matrices only, never norms.
        clip_norm: Largest global norm of a gradient.
    """

    peak_lr: float
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        checks.positive(
            "optimizer",
            peak_lr=self.peak_lr,
            eps=self.eps,
            clip_norm=self.clip_norm,
            newton_schulz_steps=self.newton_schulz_steps,
        )
        checks.not_negative("optimizer", weight_decay=self.weight_decay)
        _check_betas(momentum=self.momentum, beta1=self.beta1, beta2=self.beta2)


def _check_betas(**betas: float) -> None:
    for name, value in betas.items():
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name}={value} must be in [0, 1): it is a decay rate.")


Optimizer = AdamW | Muon


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Linear warm-up, then half a cosine from the peak down to `final_fraction` of it.

    Attributes:
        warmup_steps: Updates over which the learning rate rises from 0.
        final_fraction: Last learning rate over the peak, in [0, 1].
    """

    warmup_steps: int
    final_fraction: float = 0.1

    def __post_init__(self) -> None:
        checks.not_negative("schedule", warmup_steps=self.warmup_steps)
        checks.fraction("schedule", final_fraction=self.final_fraction)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """Linear warm-up, then a straight line from the peak down to `final_fraction` of it.

    Attributes:
        warmup_steps: Updates over which the learning rate rises from 0.
        final_fraction: Last learning rate over the peak, in [0, 1].
    """

    warmup_steps: int
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        checks.not_negative("schedule", warmup_steps=self.warmup_steps)
        checks.fraction("schedule", final_fraction=self.final_fraction)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WarmupStableDecay:
    """Warm-up, a plateau, then a `1 - sqrt` cooldown (Hägele et al. 2024, arXiv:2405.18392).

    Until the cooldown begins, nothing depends on the length of the run: a checkpoint of the
    plateau can be continued to any length, or cooled down from where it stands.

    Attributes:
        warmup_steps: Updates over which the learning rate rises from 0.
        decay_steps: Updates of the cooldown, the last ones of the run.
        final_fraction: Last learning rate over the peak, in [0, 1].
    """

    warmup_steps: int
    decay_steps: int
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        checks.not_negative(
            "schedule", warmup_steps=self.warmup_steps, decay_steps=self.decay_steps
        )
        checks.fraction("schedule", final_fraction=self.final_fraction)


Schedule = Cosine | Linear | WarmupStableDecay
