"""What of a run depends on the chips that compute it, and on nothing else."""

import dataclasses
from typing import Literal

from llama_jax.config import checks
from llama_jax.config.run import REMAT_POLICIES


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PodSettings:
    """How a model is computed on one kind of chip; a recipe names those that were tried.

    Attributes:
        tokens: Most that a device computes at once; a batch that holds more is computed in pieces.
        remat: As `ComputeConfig.remat`.
        min_chips: Fewest chips whose memory holds the model's state and a step.
    """

    tokens: int
    remat: Literal["none", "full", "attention", "qkv", "gate", "dots", "offload"] = "full"
    min_chips: int = 1

    def __post_init__(self) -> None:
        checks.positive("pods", tokens=self.tokens, min_chips=self.min_chips)
        checks.one_of("pods", REMAT_POLICIES, remat=self.remat)
