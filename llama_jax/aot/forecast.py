"""What would fit, where a program does not: a forecast, not a compilation."""

import dataclasses
import math

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What a step asks of one device.

    Attributes:
        state_bytes: Parameters and optimizer state.
        rows_per_chip: Rows of a piece of the batch; activations grow with them.
        remat: Policy of the run.
        num_chips: Over all slices.
    """

    state_bytes: float
    rows_per_chip: float
    remat: str
    num_chips: int


def forecast_fit(demand: Demand, needed: float, limit: float) -> str:
    """How far a program is over memory, and the nearest change that should fit, in words.

    All that is not state is taken to grow with the rows, as it nearly does.

    Args:
        demand: Of the step.
        needed: Bytes on one device that the compiler asked for; 0 where it did not say.
        limit: Bytes that there are.
    """
    if not needed:
        return "the compiler found no layout for its memory; use fewer rows a chip."
    over = (
        f"a step needs {needed / _GIB:,.2f} GiB on each device, {limit / _GIB:,.2f} are there: "
        f"{(needed - limit) / _GIB:,.2f} GiB too many."
    )
    if demand.state_bytes >= 0.95 * limit:
        chips = math.ceil(demand.num_chips * demand.state_bytes / (0.8 * limit))
        return (
            f"{over} Parameters and optimizer state alone take {demand.state_bytes / _GIB:,.2f}; "
            f"use at least {chips:,} chips."
        )
    share = (limit - demand.state_bytes) / (needed - demand.state_bytes)
    rows = _round_rows(demand.rows_per_chip * share)
    advice = f"--rows-per-chip {rows:g} should fit (forecast)"
    if demand.remat != "full":
        advice += ", or --compute.remat full"
    return f"{over} {advice}."


def _round_rows(rows: float) -> float:
    """Down to a whole number of rows, or to one row on 2, 4, 8 ... chips."""
    return float(math.floor(rows)) if rows >= 1 else 2.0 ** math.floor(math.log2(rows))
