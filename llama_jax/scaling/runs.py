"""Tables of training runs, read and checked before anything is fitted to them."""

import csv
import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

# Names that tables give the same thing; case does not matter.
_NAMES = {
    "params": ("params", "N", "parameters", "num_params"),
    "tokens": ("tokens", "D", "train_tokens", "num_tokens"),
    "loss": ("loss", "loss_nats_per_token"),
    "flops": ("flops", "budget", "C", "compute"),
    "unique_tokens": ("unique_tokens", "U"),
}
_OPTIONAL = ("flops", "unique_tokens")
# Of a ladder's table: True or False.
_HELD_OUT = "held_out"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Final losses of runs, one entry each.

    Attributes:
        params: Parameters, as the table counts them.
        tokens: Tokens trained on, repetitions included.
        loss: Nats per token.
        flops: Budget of the table, or 6ND where it has none.
        unique_tokens: Different tokens; equal to `tokens` where the table has none.
        dropped: What was left out, and by which rule.
    """

    params: Float[np.ndarray, "P"]
    tokens: Float[np.ndarray, "P"]
    loss: Float[np.ndarray, "P"]
    flops: Float[np.ndarray, "P"]
    unique_tokens: Float[np.ndarray, "P"]
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    def where(self, kept: np.ndarray, rule: str) -> "Runs":
        """Those that a mask keeps; the others are named in `dropped`."""
        gone = tuple(
            f"{self.params[i]:.3g} parameters on {self.tokens[i]:.3g} tokens, loss "
            f"{self.loss[i]:.4g}: {rule}"
            for i in np.flatnonzero(~kept)
        )
        return Runs(
            params=self.params[kept],
            tokens=self.tokens[kept],
            loss=self.loss[kept],
            flops=self.flops[kept],
            unique_tokens=self.unique_tokens[kept],
            dropped=self.dropped + gone,
        )


def make_runs(
    params: Sequence[float] | np.ndarray,
    tokens: Sequence[float] | np.ndarray,
    loss: Sequence[float] | np.ndarray,
) -> Runs:
    """Runs with 6ND as their compute and no token repeated."""
    N, D, L = (np.asarray(values, dtype=np.float64) for values in (params, tokens, loss))
    return Runs(params=N, tokens=D, loss=L, flops=6 * N * D, unique_tokens=D)


def read_runs(
    path: Path,
    *,
    columns: dict[str, str] | None = None,
    drop_highest: int = 0,
    where: tuple[str, str] | None = None,
    held_out: bool | None = None,
) -> Runs:
    """Reads a CSV of runs.

    Args:
        path: File with a header; the tokens may be absent where there is compute.
        columns: Names of columns by what they hold, as in {"loss": "c4_en_ce"}.
        drop_highest: Runs of highest loss that are left out.
        where: Column and the text that rows must have there.
        held_out: Which rows of a ladder's table, those to check against or those to fit; both
            by default.

    Raises:
        ValueError: If a column is missing, a value is no positive number, or nothing is left.
    """
    rows, header = _read(path)
    found = _find_columns(path, header, columns or {})
    if where is not None:
        _need_column(path, header, where[0])
        rows = [row for row in rows if row[where[0]] == where[1]]
    if held_out is not None:
        rows = [row for row in rows if row[_HELD_OUT] == str(held_out)]
    if not rows:
        raise ValueError(f"RUNS={str(path)!r} has no rows to fit.")
    values = {
        kind: np.array([_number(path, i, row, name) for i, row in enumerate(rows)])
        for kind, name in found.items()
    }
    N, loss = values["params"], values["loss"]
    D = values["tokens"] if "tokens" in values else values["flops"] / (6 * N)
    runs = Runs(
        params=N,
        tokens=D,
        loss=loss,
        flops=values.get("flops", 6 * N * D),
        unique_tokens=values.get("unique_tokens", D),
    )
    if drop_highest:
        if not 0 < drop_highest < len(runs):
            raise ValueError(f"--drop-highest={drop_highest} must leave some of {len(runs)} runs.")
        limit = np.sort(runs.loss)[-drop_highest]
        runs = runs.where(runs.loss < limit, f"among the {drop_highest} highest losses")
    return runs


def says_held_out(path: Path) -> bool:
    """Whether a table tells rows to fit from rows to check against, as a ladder's does."""
    rows, _ = _read(path)
    return {row.get(_HELD_OUT) for row in rows} == {"True", "False"}


def check_spread(runs: Runs, *, constants: int) -> None:
    """Refuses runs from which a loss over parameters and tokens cannot be told.

    Raises:
        ValueError: If there are too few, of one size, of one token count, or all on one line.
    """
    if len(runs) < constants:
        raise ValueError(
            f"RUNS has {len(runs)} usable rows; a form of {constants} constants needs at least "
            f"{constants}, and more for an interval."
        )
    x, z = np.log(runs.params), np.log(runs.tokens)
    for name, values in (("parameters", x), ("tokens", z)):
        if np.ptp(values) < 1e-6:
            raise ValueError(
                f"RUNS has a single number of {name}: how the loss depends on {name} cannot be "
                "told. Add runs of another."
            )
    centred = np.stack([x - x.mean(), z - z.mean()])
    widths = np.linalg.svd(centred, compute_uv=False)
    if widths[1] < 1e-3 * widths[0]:
        raise ValueError(
            "RUNS is collinear: log tokens is a straight line over log parameters (as with tokens "
            "always 20 times the parameters), so their two exponents cannot be told apart. Add "
            "runs off that line."
        )


def check_resamples(resamples: int) -> None:
    """Raises ValueError where an interval would rest on hardly anything."""
    if resamples and resamples < 20:
        raise ValueError(f"--resamples={resamples} must be 20 or more, or 0 for no intervals.")


def _read(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    if not path.is_file():
        raise ValueError(f"RUNS={str(path)!r}: there is no such file; give a CSV with a header.")
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            return list(reader), list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as failure:
        raise ValueError(f"RUNS={str(path)!r} is no CSV: {failure}.") from failure


def _find_columns(path: Path, header: list[str], given: dict[str, str]) -> dict[str, str]:
    lowered = {name.lower(): name for name in reversed(header)}
    found = {}
    for kind, names in _NAMES.items():
        if kind in given:
            _need_column(path, header, given[kind])
            found[kind] = given[kind]
            continue
        match = next((lowered[name.lower()] for name in names if name.lower() in lowered), None)
        if match is not None:
            found[kind] = match
    for kind in _NAMES:
        if kind in found or kind in _OPTIONAL or (kind == "tokens" and "flops" in found):
            continue
        close = [
            lowered[name]
            for name in _close(kind, lowered, lambda column, kind=kind: kind in column)
        ]
        hint = f"Did you mean --{kind}-column {close[0]}? " if close else ""
        raise ValueError(
            f"RUNS={str(path)!r} has no column for {kind} ({' or '.join(_NAMES[kind])}). {hint}"
            f"It has: {', '.join(header)}."
        )
    return found


def _close(kind: str, lowered: dict[str, str], contains: Callable[[str], bool]) -> list[str]:
    near = [
        match
        for name in _NAMES[kind]
        if len(name) > 1
        for match in difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.75)
    ]
    return near + [column for column in lowered if contains(column)]


def _need_column(path: Path, header: list[str], name: str) -> None:
    if name not in header:
        close = difflib.get_close_matches(name, header, n=1, cutoff=0.4)
        hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(header)}."
        raise ValueError(f"RUNS={str(path)!r} has no column {name!r}. {hint}")


def _number(path: Path, index: int, row: dict[str, str], name: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"RUNS={str(path)!r}, row {index + 1}: {name}={row[name]!r} must be a positive, finite "
            "number; leave runs that diverged out of the table."
        )
    return value
