"""Whether two folders hold the same model: the same bytes, and the same logits in two libraries."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llama_jax.config import ModelConfig
from llama_jax.convert.exact_program import ExactProgram
from llama_jax.convert.programs import (
    OUTPUT,
    OurProgram,
    Program,
    compute,
    stream_names,
    streams,
)
from llama_jax.convert.weights import Weights

MAX_LOGIT_DIFFERENCE = 1e-4
# Where float32 cannot tell 1e-4: how many times its own error two programs may be off float64's
# logits, and how much of the largest logit in any case.
_ERRORS_OF_FLOAT32, _SHARE_OF_LARGEST = 4.0, 1e-2
_ROW_TOKENS = 256


def compare_weights(
    first: Weights, second: Weights, on_tensor: Callable[[int], object] = lambda count: None
) -> dict[str, Any]:
    """Compares two models bit by bit, a tensor at a time.

    Args:
        first: One of the two.
        second: The other one.
        on_tensor: Called with the number of tensors compared so far.

    Returns:
        "identical", the number of tensors compared, and what differs, by name.
    """
    different = []
    if first.model != second.model:
        different += [
            f"model.{field.name}: {ours!r} and {theirs!r}"
            for field in dataclasses.fields(ModelConfig)
            if (ours := getattr(first.model, field.name))
            != (theirs := getattr(second.model, field.name))
        ]
    names = sorted(first.dtypes.keys() | second.dtypes.keys())
    for count, name in enumerate(names, start=1):
        kinds = first.dtypes.get(name), second.dtypes.get(name)
        if kinds[0] != kinds[1]:
            different.append(f"{name}: {kinds[0] or 'absent'} and {kinds[1] or 'absent'}")
        elif _digest(first.read(name)) != _digest(second.read(name)):
            different.append(f"{name}: other bytes")
        on_tensor(count)
    return {
        "identical": not different,
        "tensors": len(names),
        "different": different,
    }


def rows_of(model: ModelConfig, tokens: np.ndarray) -> Int[np.ndarray, "R T"]:
    """Tokens in rows of at most 256, which see nothing of each other."""
    length = min(_ROW_TOKENS, model.max_seq_len, tokens.size)
    return tokens[: tokens.size // length * length].reshape(-1, length)


def compare_logits(
    weights: Weights,
    theirs: Program,
    rows: Int[np.ndarray, "R T"],
    on_row: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Runs our model and another's program on the same tokens, both in float32.

    They agree where no logits are more than 1e-4 apart. Where some are, float32 may be the reason:
    sums in another order lead elsewhere, the farther the larger the numbers are. Then a third
    program, in NumPy, computes the row with the largest difference in float64 and in float32. The
    two agree if neither is farther from float64 than 4 times that float32 is, and than a
    hundredth of the largest logit.

    Args:
        weights: What our model is made of, and the third one.
        theirs: The other program.
        rows: Ids, from `rows_of`.
        on_row: Called as often as there are layers and rows, and once more a row.

    Returns:
        Over all positions: largest absolute difference of logits, largest KL divergence in nats,
        share of positions with the same best token; the largest difference after each layer,
        relative to the layer's largest value; what float64 said, if it was asked; and whether they
        agree, or after which layer they differ first.
    """
    model, ours = weights.model, OurProgram(weights)
    names = stream_names(model)
    gaps = dict.fromkeys(names, 0.0)
    x = y = np.empty(0)
    pairs = zip(streams(ours, model, rows), streams(theirs, model, rows, on_row), strict=True)
    for name, (x, y) in zip(names[:-1], pairs, strict=True):
        gaps[name] = float(
            np.max([_gap(*pair) / _largest(pair[1]) for pair in zip(x, y, strict=True)])
        )
    found = _compare_rows(ours.open_output(), theirs.open_output(), x, y, on_row)
    largest, worst = found.largest_logit, found.max_gap
    gaps[OUTPUT] = worst / largest
    allowed, exact = dict.fromkeys(names, MAX_LOGIT_DIFFERENCE), None
    agrees = worst <= MAX_LOGIT_DIFFERENCE
    if not agrees:
        exact = _judge(weights, rows[found.worst_row], found.worst_logits)
        agrees = exact["ours"] <= exact["allowed"] >= exact["theirs"]
        relative = exact.pop("relative_error_of_float32")
        allowed = {n: max(MAX_LOGIT_DIFFERENCE, _ERRORS_OF_FLOAT32 * relative[n]) for n in names}
    beyond = (name for name in names if not gaps[name] <= allowed[name])
    return {
        "agrees": bool(agrees),
        "tokens": int(rows.size),
        "max_abs_logit_difference": worst,
        "max_kl_nats": found.max_kl,
        "argmax_agreement": found.same_best / rows.size,
        "largest_logit": largest,
        "float64": exact,
        "relative_difference_after": {name: float(f"{gap:.3g}") for name, gap in gaps.items()},
        "first_layer_that_differs": None if agrees else next(beyond, OUTPUT),
    }


@dataclasses.dataclass(kw_only=True, slots=True)
class _Found:
    """What the logits of all rows show; `worst_logits` are ours and theirs of `worst_row`."""

    max_gap: float = 0.0
    max_kl: float = 0.0
    same_best: int = 0
    largest_logit: float = 1.0
    worst_row: int = 0
    worst_logits: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))


def _compare_rows(
    ours: Callable[[np.ndarray], np.ndarray],
    theirs: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    on_row: Callable[[], object],
) -> _Found:
    found = _Found()
    for row in range(len(x)):
        got, expected = ours(x[row]), theirs(y[row])
        gap = _gap(got, expected)
        found.largest_logit = float(np.maximum(found.largest_logit, _largest(expected)))
        found.max_kl = float(np.maximum(found.max_kl, _kl(expected, got).max()))
        found.same_best += int((got.argmax(-1) == expected.argmax(-1)).sum())
        if not gap <= found.max_gap:  # a gap that is not a number is the largest
            found.max_gap, found.worst_row, found.worst_logits = gap, row, (got, expected)
        on_row()
    return found


def _judge(
    weights: Weights, tokens: Int[np.ndarray, " T"], logits: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """How far two programs, and float32 itself, are from float64's logits of a row."""
    exact, rounded = (
        compute(ExactProgram(weights, dtype), weights.model, tokens)
        for dtype in (np.float64, np.float32)
    )
    names = stream_names(weights.model)
    errors = {name: _gap(rounded[name], exact[name]) for name in names}
    largest = _largest(exact[OUTPUT])
    return {
        "tokens": len(tokens),
        "ours": _gap(logits[0], exact[OUTPUT]),
        "theirs": _gap(logits[1], exact[OUTPUT]),
        "float32": errors[OUTPUT],
        "allowed": min(_ERRORS_OF_FLOAT32 * errors[OUTPUT], _SHARE_OF_LARGEST * largest),
        "relative_error_of_float32": {name: errors[name] / _largest(exact[name]) for name in names},
    }


def _gap(got: Float[np.ndarray, "..."], expected: Float[np.ndarray, "..."]) -> float:
    return float(np.abs(got - expected).max())


def _largest(values: Float[np.ndarray, "..."]) -> float:
    return float(np.abs(values).max()) or 1.0


def _kl(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    p, q = _log_softmax(expected), _log_softmax(got)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _digest(pieces: Iterator[memoryview]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
