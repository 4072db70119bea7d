"""How initial weights and learning rates follow the size of a model, so that one sweep serves all.

Without one, weights of every size begin alike and learn at the same rate, and the best learning
rate falls as models grow.
"""

import dataclasses

from llama_jax.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MuP:
    """What suits the base suits every width (Yang et al. 2022, arXiv:2203.03466).

    A model of the base's sizes trains as it would without this. All widths grow together: keep
    `mlp_dim` and `num_heads * head_dim` at the base's multiple of `embed_dim`.

    Attributes:
        base_embed_dim: Width at which the learning rate was found.
        base_head_dim: Width of its heads; most ladders keep it and add heads.
    """

    base_embed_dim: int
    base_head_dim: int

    def __post_init__(self) -> None:
        checks.positive(
            "parameterisation",
            base_embed_dim=self.base_embed_dim,
            base_head_dim=self.base_head_dim,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompleteP:
    """What suits the base suits every width and depth (Dey et al. 2025, arXiv:2505.01618).

    Attributes:
        base_embed_dim: As in `MuP`.
        base_head_dim: As in `MuP`.
        base_num_layers: Depth at which the learning rate was found.
    """

    base_embed_dim: int
    base_head_dim: int
    base_num_layers: int

    def __post_init__(self) -> None:
        checks.positive(
            "parameterisation",
            base_embed_dim=self.base_embed_dim,
            base_head_dim=self.base_head_dim,
            base_num_layers=self.base_num_layers,
        )


Parameterisation = MuP | CompleteP
