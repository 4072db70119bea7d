"""The gated feed-forward block."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.initializers import new_param, residual_stddev
from llama_jax.ops.project import project
from llama_jax.sharding import constrain, constrain_stream, gather, platform


class MLP(nnx.Module):
    """SwiGLU: one projection gates the other through SiLU.

    Source: Shazeer 2020 (arXiv:2002.05202), equation 6.
    """

    def __init__(self, config: ModelConfig, compute: ComputeConfig, *, rngs: nnx.Rngs):
        D, F = config.embed_dim, config.mlp_dim
        self.gate = new_param(rngs, (D, F), ("embed", "mlp"))
        self.up = new_param(rngs, (D, F), ("embed", "mlp"))
        self.down = new_param(rngs, (F, D), ("mlp", "embed"), stddev=residual_stddev(config))
        self.matmul = compute.matmul

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns the update to add to the residual stream, in the dtype of `x`."""
        x = constrain(x, "batch", "seq", "act_embed")
        hidden = self._hidden_of_both(x) if platform() == "cpu" else self._hidden(x)
        down = project(hidden, gather(self.down.astype(x.dtype), "mlp", "embed"), self.matmul)
        return constrain_stream(down)

    def _hidden(self, x: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
        gate = project(x, gather(self.gate.astype(x.dtype), "embed", "mlp"), self.matmul)
        up = project(x, gather(self.up.astype(x.dtype), "embed", "mlp"), self.matmul)
        gate = checkpoint_name(constrain(gate, "batch", "seq", "act_mlp"), "mlp_gate")
        up = checkpoint_name(constrain(up, "batch", "seq", "act_mlp"), "mlp_up")
        return jax.nn.silu(gate) * up

    def _hidden_of_both(self, x: Float[Array, "B T D"]) -> Float[Array, "B T F"]:
        # Side by side, so that `x` is read by one matmul, and its gradient written by one: faster
        # on a CPU, while a TPU would copy the two apart again.
        weights = jnp.stack([self.gate[...], self.up[...]], axis=1).astype(x.dtype)
        gate_up = project(x, gather(weights, "embed", None, "mlp"), self.matmul)
        gate_up = constrain(gate_up, "batch", "seq", None, "act_mlp")
        return swiglu(checkpoint_name(gate_up, "mlp_gate_up"))


@jax.custom_vjp
def swiglu(gate_up: Float[Array, "B T 2 F"]) -> Float[Array, "B T F"]:
    """`silu(gate) * up`, in the dtype given; keeps nothing but its input for the gradient."""
    gate, up = gate_up[..., 0, :], gate_up[..., 1, :]
    return jax.nn.silu(gate) * up


def _keep_input(gate_up: Float[Array, "B T 2 F"]) -> tuple[Array, Array]:
    return swiglu(gate_up), gate_up


def _gradient(gate_up: Float[Array, "B T 2 F"], d_out: Float[Array, "B T F"]) -> tuple[Array]:
    gate, up = gate_up[..., 0, :], gate_up[..., 1, :]
    open_share = jax.nn.sigmoid(gate)
    d_gate = d_out * up * open_share * (1 + gate * (1 - open_share))
    return (jnp.stack([d_gate, d_out * gate * open_share], axis=-2),)


swiglu.defvjp(_keep_input, _gradient)
