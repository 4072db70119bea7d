"""What of a run depends on the chips that compute it, and on nothing else."""

import dataclasses
from typing import Literal

from llama_jax.config import checks
from llama_jax.config.run import GRADIENTS, REMAT_POLICIES, Remat
from llama_jax.config.tiles import KernelTiles


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PodSettings:
    """How a model is computed on one kind of chip; docs/pods says which of them were compiled.

    Attributes:
        tokens: Most that a device computes at once; a batch that holds more is computed in pieces.
        remat: As `ComputeConfig.remat`.
        gradients: As `ComputeConfig.gradients`.
        tiles: As `ComputeConfig.tiles`.
        min_chips: Fewest chips of a slice whose memory holds a stage of the model and a step.
        shards: Devices that one copy of the model is split over, where chips form no grid; 0 for
            all of them.
        stage: Slices that each have a stage of the layers.
        stage_rows: As `ComputeConfig.stage_rows`.
        tensor: Devices that split heads and MLP width.
        context: Devices that split each row.
    """

    tokens: int
    remat: Remat = "full"
    gradients: Literal["scatter", "sum"] = "scatter"
    tiles: KernelTiles = KernelTiles()  # noqa: RUF009 (frozen)
    min_chips: int = 1
    shards: int = 0
    stage: int = 1
    stage_rows: int = 1
    tensor: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        sizes = ("tokens", "min_chips", "stage", "stage_rows", "tensor", "context")
        checks.positive("pods", **{name: getattr(self, name) for name in sizes})
        checks.not_negative("pods", shards=self.shards)
        checks.one_of("pods", REMAT_POLICIES, remat=self.remat)
        checks.one_of("pods", GRADIENTS, gradients=self.gradients)
