"""Matmuls as XLA does them in our training step; started by `matmul.py`."""

from collections.abc import Callable
from typing import Any

from protocol import keep_to_cores, serve_matmuls

from llama_jax.train.backend import compiler_options, keep_freed_memory


def main() -> None:
    """Serves turns on the number of cores that argv names."""
    keep_to_cores()
    keep_freed_memory()
    import jax
    import jax.numpy as jnp

    from llama_jax.ops.project import project

    def block(form: str) -> Callable[..., Any]:
        def backward(x: Any, weight: Any, d_out: Any) -> Any:
            d_x, d_weight = jax.vjp(project, x[None], weight)[1](d_out[None])
            return d_x if form == "of input" else d_weight

        return (lambda x, weight, _: project(x[None], weight)) if form == "forward" else backward

    def logits(form: str) -> Callable[..., Any]:  # as in ops/cross_entropy.py
        return {
            "forward": lambda x, table, _: jnp.einsum("TD,VD->TV", x, table),
            "of input": lambda _, table, d_out: jnp.einsum("TV,VD->TD", d_out, table),
            "of weight": lambda x, _, d_out: jnp.einsum("TD,TV->DV", x, d_out),
        }[form]

    def make(case: dict[str, Any], copies: int) -> list[Callable[[], Any]]:
        tokens, into, out = case["shape"]
        kind, weight = (logits, (out, into)) if case["logits"] else (block, (into, out))
        shapes = ((tokens, into), weight, (tokens, out))
        sets = [[jnp.ones(shape) for shape in shapes] for _ in range(copies)]
        compiled = jax.jit(
            kind(case["form"]), compiler_options=compiler_options(jax.devices("cpu")[0])
        )
        return [lambda s=s: compiled(*s).block_until_ready() for s in sets]

    serve_matmuls(make)


if __name__ == "__main__":
    main()
