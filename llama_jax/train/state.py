"""What an update reads and writes, and where its parts live."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from llama_jax.sharding import divisible, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All arrays that a checkpoint holds; the data's position follows from `step`.

    Attributes:
        step: Updates made so far, skipped ones included.
        params: Parameters, float32.
        opt_state: State of the update rule, each moment laid out like its parameter.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: optax.OptState


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update; its parts are born in the layout of `abstract_state`."""
    layout = shardings(abstract_state(params, optimizer))

    def build() -> tuple[Int[Array, ""], optax.OptState]:
        # Abstract parameters: the optimizer's first state depends on their shapes alone.
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)
        return jnp.zeros((), jnp.int32), optimizer.init(zeros)

    step, opt_state = jax.jit(build, out_shardings=(layout.step, layout.opt_state))()
    return TrainState(step=step, params=params, opt_state=opt_state)


def abstract_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and layout of the whole state under the current mesh.

    Args:
        params: Parameters, concrete or abstract, each with its `NamedSharding`.
        optimizer: The update rule.
    """
    mesh = jax.sharding.get_mesh()
    everywhere = replicated(mesh)
    spec_of = {path: p.sharding.spec for path, p in jax.tree.leaves_with_path(params)}

    def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        # A moment's path ends with the path of its parameter.
        tails = (spec_of.get(path[start:]) for start in range(len(path)))
        spec = next((s for s in tails if s is not None), P())
        sharding = NamedSharding(mesh, divisible(spec, leaf.shape, mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    opt_state = jax.tree.map_with_path(place, jax.eval_shape(optimizer.init, params))
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),  # pyright: ignore[reportArgumentType]
        params=jax.tree.map_with_path(place, params),
        opt_state=opt_state,
    )


def shardings(state: TrainState) -> TrainState:
    """The layout of each part of a state, in the state's structure."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
