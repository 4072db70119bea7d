"""The gated feed-forward block."""

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import new_param, residual_stddev
from llama_jax.ops.project import project
from llama_jax.sharding import constrain


class MLP(nnx.Module):
    """SwiGLU: one projection gates the other through SiLU.

    Source: Shazeer 2020 (arXiv:2002.05202), equation 6.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F = config.embed_dim, config.mlp_dim
        self.gate = new_param(rngs, (D, F), ("embed", "mlp"))
        self.up = new_param(rngs, (D, F), ("embed", "mlp"))
        self.down = new_param(rngs, (F, D), ("mlp", "embed"), stddev=residual_stddev(config))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns the update to add to the residual stream, in the dtype of `x`."""
        gate = project(x, self.gate.astype(x.dtype))
        up = project(x, self.up.astype(x.dtype))
        gate = checkpoint_name(constrain(gate, "batch", "seq", "act_mlp"), "mlp_gate")
        up = checkpoint_name(constrain(up, "batch", "seq", "act_mlp"), "mlp_up")
        down = project(jax.nn.silu(gate) * up, self.down.astype(x.dtype))
        return constrain(down, "batch", "seq", "act_embed")
