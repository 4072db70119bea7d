"""One optimizer update, end to end."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from llama_jax.config import ComputeConfig, RunConfig
from llama_jax.data.batch import Batch
from llama_jax.ops.cross_entropy import LossSums, cross_entropy
from llama_jax.sharding import gather, gradients_summed, on_data_shards, replicated
from llama_jax.train.backend import compiler_options
from llama_jax.train.feed import abstract_batch
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.parameterisation import make_rules
from llama_jax.train.state import TrainState, shardings

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def make_update(graphdef: nnx.GraphDef[Any], config: RunConfig) -> TrainStep:
    """Builds what a step computes.

    The learning rate comes from outside: one program serves every schedule and length of a run,
    so that what two runs have in common they compute bit for bit alike.

    An update whose loss or gradient is not finite, or above ceilings that it is given, changes
    neither parameters nor optimizer state; it counts as a step, so that the data and the schedule
    move on.

    Args:
        graphdef: Of the model.
        config: Of the run.

    Returns:
        `(state, batch, learning_rate, [ceilings]) -> (state, metrics)`; ceilings are the largest
        loss and norm of the gradient that are no spike. Metrics are float32 scalars over the global
        batch: `loss_nats_per_token`, `grad_norm` before clipping, `param_norm` after the update,
        `learning_rate`, `tokens` that counted in the loss, and `skipped`, 0 or 1.
    """
    optimizer = make_optimizer(config.optimizer, make_rules(config))
    gradient = jax.value_and_grad(_objective(graphdef, config), has_aux=True)

    def train_step(
        state: TrainState,
        batch: Batch,
        learning_rate: Float[Array, ""],
        ceilings: Float[Array, "2"] | None = None,
    ) -> tuple[TrainState, Metrics]:
        weight = jnp.sum(batch.loss_mask)
        grads, loss = _accumulate(
            lambda piece: gradient(state.params, piece, weight),
            batch,
            config.train.accumulation_steps,
        )
        grad_norm = optax.tree.norm(grads)
        made = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        if ceilings is not None:
            made &= (loss <= ceilings[0]) & (grad_norm <= ceilings[1])

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, state.params, updates)
        # A select, unlike a branch, is fused into the update and waits for no host.
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(made, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        metrics = {
            "loss_nats_per_token": loss,
            "grad_norm": grad_norm,
            "param_norm": optax.tree.norm(params),
            "learning_rate": learning_rate,
            "tokens": weight,
            "skipped": 1.0 - made,
        }
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def make_train_step(
    graphdef: nnx.GraphDef[Any], config: RunConfig, abstract_state: TrainState
) -> Any:
    """Jits what `make_update` builds; it donates, and so consumes, the state it is given.

    Args:
        graphdef: Of the model.
        config: Of the run.
        abstract_state: Layout that the new state keeps.
    """

    layout = shardings(abstract_state)
    devices = jax.tree.leaves(layout)[0].device_set
    device = min(devices, key=lambda d: (d.process_index != jax.process_index(), d.id))
    return jax.jit(
        make_update(graphdef, config),
        donate_argnums=0,
        out_shardings=(layout, None),
        compiler_options=compiler_options(device),
    )


def abstract_arguments(
    config: RunConfig, mesh: Mesh, abstract_state: TrainState, batch_size: int
) -> tuple[Any, ...]:
    """What the step is lowered with: shapes, dtypes and layout of its arguments."""

    def number(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

    ceilings = [number(2)] if config.guards.on_spike == "skip" else []
    return abstract_state, abstract_batch(config, mesh, batch_size), number(), *ceilings


def make_loss_sums(
    graphdef: nnx.GraphDef[Any], compute: ComputeConfig, *, z_loss: float = 0.0
) -> Callable[[Any, Batch], LossSums]:
    """Builds `(params, batch) -> sums` of losses and weights over all tokens of a batch."""

    @on_data_shards
    def of_rows(params: Any, batch: Batch) -> LossSums:
        model = nnx.merge(graphdef, params)
        with gradients_summed(compute.gradients == "sum"):
            hidden = model.hidden(batch.inputs, batch.positions, batch.segments)
            table = gather(model.output_table.astype(hidden.dtype), "vocab", "embed")
        return cross_entropy(
            hidden,
            table,
            jnp.asarray(batch.targets),
            jnp.asarray(batch.loss_mask),
            num_chunks=compute.loss_chunks,
            z_loss=z_loss,
        )

    return lambda params, batch: jax.tree.map(jnp.sum, of_rows(params, batch))


def _objective(
    graphdef: nnx.GraphDef[Any], config: RunConfig
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """What is differentiated: a piece's share of the global batch's mean, and the loss alone."""
    loss_sums = make_loss_sums(graphdef, config.compute, z_loss=config.train.z_loss)

    def objective(
        params: Any, piece: Batch, weight: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        sums = loss_sums(params, piece)
        # Every real token of the global batch weighs the same, however documents were packed;
        # a batch of padding alone has loss 0.
        share = jnp.maximum(weight, 1.0)
        return (sums.nats + sums.z) / share, sums.nats / share

    return objective


def _accumulate(
    gradient: Callable[[Batch], tuple[tuple[Float[Array, ""], Float[Array, ""]], Any]],
    batch: Batch,
    num_pieces: int,
) -> tuple[Any, Float[Array, ""]]:
    """Sums gradients and losses over the pieces of a batch, one piece after another."""
    if num_pieces == 1:
        (_, loss), grads = gradient(batch)
        return grads, loss

    def cut(rows: Array) -> Array:
        # Every `num_pieces`-th row makes a piece: contiguous pieces would each live on a part
        # of the devices only, and travel.
        return jnp.moveaxis(rows.reshape(-1, num_pieces, *rows.shape[1:]), 1, 0)

    def add(total: tuple[Any, Array], piece: Batch) -> tuple[tuple[Any, Array], None]:
        (_, loss), grads = gradient(piece)
        return jax.tree.map(jnp.add, total, (grads, loss)), None

    pieces = jax.tree.map(cut, batch)
    shapes = jax.eval_shape(gradient, jax.tree.map(lambda rows: rows[0], pieces))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[1], shapes[0][1]))
    (grads, loss), _ = jax.lax.scan(add, zeros, pieces)
    return grads, loss
