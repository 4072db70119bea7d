"""Arrays of a state by dotted name, so that a checkpoint is read without the code that made it."""

from typing import Any

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey


def named_arrays(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by names such as `params.blocks.mlp.gate` or `opt_state.1.0.mu.embed`.

    The attribute `value` in which an `nnx.Variable` keeps its array is left out, so that a state
    of Variables and one of plain arrays have the same names.

    Raises:
        ValueError: If two leaves have the same name.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
            path = path[:-1]
        name = ".".join(map(_key_name, path)) or "value"
        if name in named:
            raise ValueError(f"state.{name} names two arrays; rename a field of the state.")
        named[name] = leaf
    return named


def _key_name(key: Any) -> str:
    match key:
        case DictKey(key=name) | FlattenedIndexKey(key=name):
            return str(name)
        case GetAttrKey(name=name):
            return name
        case SequenceKey(idx=index):
            return str(index)
        case _:
            return str(key)
