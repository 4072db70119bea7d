"""Parameters that come into being where they will live."""

import jax
from flax import nnx
from jax.sharding import NamedSharding

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.llama import Llama


def init_params(
    config: ModelConfig, compute: ComputeConfig, seed: int
) -> tuple[nnx.GraphDef[Llama], nnx.State]:
    """Random float32 parameters, each device holding only its own shards of the current layout.

    The values depend on the seed alone, not on the mesh.

    Raises:
        ValueError: If the current mesh cannot split a size of the model evenly.
    """
    graphdef, abstract = abstract_params(config, compute)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def make(key: jax.Array) -> nnx.State:
        return nnx.state(Llama(config, compute, rngs=nnx.Rngs(params=key)))

    # On CPU, LLVM would spend seconds on each random draw and make it no faster.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    make_sharded = jax.jit(make, out_shardings=shardings, compiler_options=options)
    return graphdef, make_sharded(jax.random.key(seed))


def abstract_params(
    config: ModelConfig, compute: ComputeConfig
) -> tuple[nnx.GraphDef[Llama], nnx.State]:
    """Shapes, dtypes and shardings of the parameters under the current layout; allocates nothing.

    Raises:
        ValueError: If the current mesh cannot split a size of the model evenly.
    """
    model = nnx.eval_shape(lambda: Llama(config, compute, rngs=nnx.Rngs(params=0)))
    graphdef, params = nnx.split(nnx.as_abstract(model))
    mesh = jax.sharding.get_mesh()  # of devices, where Flax names an abstract one

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, leaf.sharding.spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return graphdef, jax.tree.map(place, params)
