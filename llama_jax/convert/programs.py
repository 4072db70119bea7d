"""Programs that compute a LLaMA layer after layer, so that one layer is in memory at a time."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from llama_jax.config import ComputeConfig, MeshConfig, ModelConfig
from llama_jax.convert import mapping
from llama_jax.convert.weights import Weights

EMBEDDING, OUTPUT = "model.embed_tokens", "lm_head"  # as Hugging Face calls them


class Program(Protocol):
    """A library that computes a model, on rows of tokens that see nothing of each other.

    Attributes:
        name: For people.
    """

    name: str

    def embed(self, tokens: Int[np.ndarray, "R T"]) -> Float[np.ndarray, "R T D"]:
        """The residual stream before the first layer."""
        ...

    def open_layer(
        self, index: int
    ) -> Callable[[Float[np.ndarray, "T D"]], Float[np.ndarray, "T D"]]:
        """A function from the residual stream of a row to what a layer makes of it."""
        ...

    def open_output(self) -> Callable[[Float[np.ndarray, "T D"]], Float[np.ndarray, "T V"]]:
        """A function from the last residual stream of a row to logits."""
        ...


def stream_names(model: ModelConfig) -> list[str]:
    """What each residual stream comes from, then the logits, under Hugging Face's names."""
    layers = [f"model.layers.{layer}" for layer in range(model.num_layers)]
    return [EMBEDDING, *layers, OUTPUT]


def streams(
    program: Program,
    model: ModelConfig,
    tokens: Int[np.ndarray, "R T"],
    on_row: Callable[[], object] = lambda: None,
) -> Iterator[Float[np.ndarray, "R T D"]]:
    """The residual streams of all rows: before the first layer, and after each."""
    x = program.embed(tokens)
    yield x
    for index in range(model.num_layers):
        layer = program.open_layer(index)
        after = np.empty_like(x)
        for row in range(len(x)):
            after[row] = layer(x[row])
            on_row()
        # Another program holds its layer next.
        del layer
        x = after
        yield x


def compute(
    program: Program, model: ModelConfig, tokens: Int[np.ndarray, " T"]
) -> dict[str, np.ndarray]:
    """Residual streams and logits of a row, by what they come from."""
    rows = [x[0] for x in streams(program, model, tokens[None])]
    return dict(zip(stream_names(model), [*rows, program.open_output()(rows[-1])], strict=True))


class OurProgram:
    """Our own model, in float32.

    Args:
        weights: What it is made of.
    """

    name = "llama_jax"

    def __init__(self, weights: Weights):
        import jax
        from flax import nnx

        from llama_jax.model import abstract_params
        from llama_jax.sharding import make_mesh, use_layout

        self._weights = weights
        # A layer at a time; the vocabulary's tables are read apart from it.
        self._one = dataclasses.replace(
            weights.model, num_layers=1, vocab_size=1, tie_embeddings=True
        )
        self._mesh = make_mesh(MeshConfig(), devices=jax.local_devices()[:1])
        with use_layout(self._mesh):
            self._graphdef, self._params = abstract_params(
                self._one, ComputeConfig(dtype="float32")
            )

        def run_layer(params: Any, x: Any) -> Any:
            import jax.numpy as jnp

            from llama_jax.ops.rope import rope_frequencies, rotation

            model = nnx.merge(self._graphdef, params)
            inner, blocks = nnx.split(model.blocks)
            block = nnx.merge(inner, jax.tree.map(lambda leaf: leaf[0], blocks))
            positions = jnp.arange(x.shape[1])[None]
            turn = rotation(positions, rope_frequencies(self._one.rope, self._one.head_dim))
            return block(x, turn, jnp.ones_like(positions))

        def run_output(params: Any, table: Any, x: Any) -> Any:
            import jax.numpy as jnp

            hidden = nnx.merge(self._graphdef, params).final_norm(x)
            return jnp.einsum("BTD,VD->BTV", hidden, table)

        self._run_layer, self._run_output = jax.jit(run_layer), jax.jit(run_output)

    def embed(self, tokens: Int[np.ndarray, "R T"]) -> Float[np.ndarray, "R T D"]:
        """The residual stream before the first layer."""
        return self._weights.rows(f"{EMBEDDING}.weight", tokens)

    def open_layer(self, index: int) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the residual stream of a row to what a layer makes of it."""
        params = self._read(index)
        return lambda x: self._call(self._run_layer, params, x[None])

    def open_output(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from the last residual stream of a row to logits."""
        import jax.numpy as jnp

        model = self._weights.model
        name = EMBEDDING if model.tie_embeddings else OUTPUT
        shape = (model.vocab_size, model.embed_dim)
        params = self._read(None)
        table = jnp.asarray(self._weights.array(f"{name}.weight", shape))
        return lambda x: self._call(self._run_output, params, table, x[None])

    def _call(self, function: Callable[..., Any], *arguments: Any) -> np.ndarray:
        import jax

        from llama_jax.sharding import use_layout

        # An accelerator would round float32 to fewer bits before it multiplies.
        with use_layout(self._mesh), jax.default_matmul_precision("highest"):
            return np.asarray(function(*arguments)[0])

    def _read(self, index: int | None) -> Any:
        """Parameters of the model of one layer: those of layer `index`, or of the final norm."""
        import jax
        import jax.numpy as jnp
        from flax import nnx

        shapes = {tensor.name: tensor.shape for tensor in mapping.tensors_of(self._one)}

        def read(name: str) -> np.ndarray:
            if name.startswith("model.layers.") == (index is None) or name.startswith(EMBEDDING):
                return np.zeros(shapes[name], np.float32)
            theirs = name.replace("layers.0.", f"layers.{index}.")
            return self._weights.array(theirs, shapes[name])

        nested: dict[str, Any] = {}
        for path, value in mapping.to_ours(self._one, read).items():
            *parents, last = path.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = jnp.asarray(value)
        params = jax.tree.map(lambda leaf: leaf, self._params)
        nnx.replace_by_pure_dict(params, nested)
        return params
