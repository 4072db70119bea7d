"""Shapes of arrays, as signatures state them, enforced while tests run.

`tests/conftest.py` has jaxtyping decorate every function of the packages that state shapes. Other
types are the type checker's business: of a signature, its arrays alone are looked at.
"""

import functools
import operator
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from beartype import beartype
from jaxtyping import AbstractArray

PACKAGES = [f"llama_jax.{room}" for room in ("ops", "model", "data", "infer", "train", "scaling")]


def enforce(function: Callable[..., Any]) -> Callable[..., Any]:
    """A type checker for jaxtyping's import hook."""
    stated = getattr(function, "__annotations__", {})
    shapes = {name: _loosened(hint) for name, hint in stated.items() if _states_shape(hint)}
    # What is made of leaves is also made of what stands for them: shapes alone, shardings, nothing.
    if not shapes or function.__name__ == "__init__":
        return function
    function.__annotations__ = shapes
    return beartype(function)


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _states_shape(hint: Any) -> bool:
    if typing.get_origin(hint) is Callable:
        return False  # what a function takes is seen when it is called
    return _is_array(hint) or any(map(_states_shape, typing.get_args(hint)))


def _loosened(hint: Any) -> Any:
    """The hint, where an array may be NumPy's too: JAX takes those as it takes its own."""
    if _is_array(hint) and hint.array_type is jax.Array:
        return hint.dtype[jax.Array | np.ndarray, hint.dim_str]
    if type(None) in (options := typing.get_args(hint)):
        return functools.reduce(operator.or_, map(_loosened, options))
    return hint
