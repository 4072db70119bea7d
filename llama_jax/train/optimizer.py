"""Update rules: what an update is before the learning rate multiplies it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from llama_jax.config import AdamW, Optimizer
from llama_jax.train.moments import keep_in_bfloat16, keep_in_int8
from llama_jax.train.parameterisation import Rules, at_each_size, without_multipliers

# Every parameter is one of three kinds, by the last name of its path. Hidden matrices come with
# the axes that they contract and the axes that they make; the axis that is left, of layers, is a
# batch of matrices.
_HIDDEN_MATRICES = {
    "query": ((1,), (2, 3)),
    "key": ((1,), (2, 3)),
    "value": ((1,), (2, 3)),
    "out": ((1, 2), (3,)),
    "gate": ((1,), (2,)),
    "up": ((1,), (2,)),
    "down": ((1,), (2,)),
}
_TABLES = ("table",)
_NORMS = ("scale",)


def make_optimizer(
    optimizer: Optimizer, rules: Rules | None = None
) -> optax.GradientTransformation:
    """The update rule, for a learning rate of 1: subtract `learning_rate * update`.

    The learning rate stays outside: the optimizer's state then knows nothing of the length of
    the run, so a checkpoint of one schedule starts another, and an update that is skipped does
    not delay the schedule.

    Gradients are first scaled down to a global norm of `clip_norm`. Weight decay takes all
    matrices, embedding and output tables included, because LLaMA names no exception
    (arXiv:2302.13971, section 2.3), and no norm scale.

    Source of Muon's scale: Liu et al. 2025 (arXiv:2502.16982, section 2.2), `0.2 sqrt(max(rows,
    columns))`; all heads of a projection are one matrix, each layer is its own. Deviation: Adam,
    for tables and norms, has no Nesterov term, which `optax.contrib.muon` would give it.

    Args:
        optimizer: The rule and its constants.
        rules: Of the run's parameterisation, which is AdamW's alone; None for none.
    """
    clip = optax.clip_by_global_norm(optimizer.clip_norm)
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=decay_mask)
    adam = optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.eps)
    if isinstance(optimizer, AdamW):
        adam = _with_small_moments(adam, optimizer.state_dtype)
        if rules is not None:
            clip, adam = without_multipliers(clip, rules), at_each_size(adam, rules)
        return optax.chain(clip, adam, decay)
    assert rules is None, "the config refuses it"
    muon = optax.chain(
        contrib.scale_by_muon(
            ns_steps=optimizer.newton_schulz_steps,
            beta=optimizer.momentum,
            weight_dimension_numbers=matrix_axes,
        ),
        optax.stateless(_scale_to_adams_size),
    )
    both = optax.partition({"muon": muon, "adam": adam}, _by_kind("muon", "adam"))
    return optax.chain(clip, both, decay)


def _with_small_moments(
    adam: optax.GradientTransformation, state_dtype: str
) -> optax.GradientTransformation:
    match state_dtype:
        case "bfloat16":
            return keep_in_bfloat16(adam)
        case "int8":
            in_int8 = keep_in_int8(adam, _axis_within_a_device)
            return optax.partition({"int8": in_int8, "float32": adam}, _by_kind("int8", "float32"))
        case _:
            return adam


def decay_mask(params: Any) -> Any:
    """True where weight decay applies, in the structure of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _kind(path) != "norm", params)


def matrix_axes(params: Any) -> Any:
    """Contracted and made axes of every hidden matrix, in the structure of `params`."""

    def axes(path: tuple[Any, ...], _: Any) -> contrib.MuonDimensionNumbers:
        return contrib.MuonDimensionNumbers(*_HIDDEN_MATRICES[_name(path)])

    return jax.tree_util.tree_map_with_path(axes, params)


def _scale_to_adams_size(updates: Any, params: Any = None) -> Any:
    """Gives an orthogonal matrix, whose entries shrink as it grows, entries of about 0.2."""
    del params

    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        contracted, made = _HIDDEN_MATRICES[_name(path)]
        rows = math.prod(update.shape[axis] for axis in contracted)
        columns = math.prod(update.shape[axis] for axis in made)
        return 0.2 * math.sqrt(max(rows, columns)) * update

    return jax.tree_util.tree_map_with_path(scale, updates)


def _by_kind(matrices: str, others: str) -> Callable[[Any], Any]:
    """Labels the hidden matrices and all the other parameters, in their structure."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        return matrices if _kind(path) == "matrix" else others

    return functools.partial(jax.tree_util.tree_map_with_path, label)


def _axis_within_a_device(path: tuple[Any, ...]) -> int:
    """Head width or MLP width, which `fsdp` does not split, counted from the end."""
    return -2 if _name(path) in ("out", "down") else -1


def _kind(path: tuple[Any, ...]) -> str:
    name = _name(path)
    if name in _HIDDEN_MATRICES:
        return "matrix"
    if name in _TABLES:
        return "table"
    assert name in _NORMS, f"{jax.tree_util.keystr(path)} must be listed as one of three kinds"
    return "norm"


def _name(path: tuple[Any, ...]) -> str:
    # Keys of dictionaries name modules and parameters; attributes, what a variable holds.
    return next(key.key for key in reversed(path) if isinstance(key, jax.tree_util.DictKey))
