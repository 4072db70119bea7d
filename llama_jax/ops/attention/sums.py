"""Sums over a leading axis, as XLA for TPUs does them well."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

_MOST_TERMS = 64


def add_up(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, in which sums over a short leading axis are written as additions.

    XLA for TPUs expects 8 results a cycle of a sum over a leading axis, whatever the number of
    terms: 8.5 million cycles for the gradient of the queries in a layer of a 70B model on a v6e,
    two rows of 4,096 tokens at once, where the additions take 1.1 million.
    """

    def run(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        results = _run(program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return run


def _run(program: Jaxpr, constants: Any, arguments: Any) -> list[Any]:
    values: dict[Any, Any] = {}
    unconverted: dict[Any, Any] = {}

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    values.update(zip(program.constvars, constants, strict=True))
    values.update(zip(program.invars, arguments, strict=True))
    for equation in program.eqns:
        inputs = [read(variable) for variable in equation.invars]
        inner = equation.params.get("jaxpr")
        with jax.named_scope(str(equation.source_info.name_stack)):
            if equation.primitive.name in ("jit", "pjit") and isinstance(inner, ClosedJaxpr):
                outputs = _run(inner.jaxpr, inner.consts, inputs)
            elif _sums_few_terms(equation):
                (summed,) = equation.invars
                outputs = [_add(unconverted.get(summed, inputs[0]), equation)]
            else:
                outputs = equation.primitive.bind(*inputs, **equation.params)
                outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
        if equation.primitive.name == "convert_element_type":
            unconverted[equation.outvars[0]] = inputs[0]
    return [read(variable) for variable in program.outvars]


def _sums_few_terms(equation: JaxprEqn) -> bool:
    if equation.primitive.name != "reduce_sum" or len(equation.params["axes"]) != 1:
        return False
    (axis,) = equation.params["axes"]
    summed: Any = equation.invars[0].aval
    return axis < summed.ndim - 2 and 1 < summed.shape[axis] <= _MOST_TERMS


def _add(terms: jax.Array, equation: JaxprEqn) -> jax.Array:
    """Converts each term by itself: all of them converted would be written to memory first."""
    (axis,) = equation.params["axes"]
    result: Any = equation.outvars[0].aval
    total, *rest = (
        jax.lax.index_in_dim(terms, number, axis, keepdims=False).astype(result.dtype)
        for number in range(terms.shape[axis])
    )
    for term in rest:
        total = total + term
    return total
