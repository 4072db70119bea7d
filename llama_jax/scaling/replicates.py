"""Runs of the same parameters and tokens: seeds of one cell, drawn together and compared."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from llama_jax.scaling.runs import Runs


class Cell(NamedTuple):
    """Runs that differ in nothing but their seeds.

    Attributes:
        params: Of each.
        tokens: Of each.
        runs: How many there are.
        deviation: Standard deviation of their losses, in nats per token.
    """

    params: float
    tokens: float
    runs: int
    deviation: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SeedNoise:
    """How far a loss moves with the seed alone.

    Attributes:
        cells: Those of two runs or more.
        pooled: Standard deviation over all of them, each around its own mean, in nats per token.
        relative: The same of the log loss.
    """

    cells: tuple[Cell, ...]
    pooled: float
    relative: float

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "pooled_nats_per_token": self.pooled,
            "pooled_relative": self.relative,
            "cells": [cell._asdict() for cell in self.cells],
        }

    def __str__(self) -> str:
        count = sum(cell.runs for cell in self.cells)
        return (
            f"standard deviation of seeds: {self.pooled:.4f} nats per token ({self.relative:.2%}), "
            f"pooled over {count} runs of {len(self.cells)} pairs of parameters and tokens"
        )


def cell_numbers(runs: Runs) -> Int[np.ndarray, "P"]:
    """The cell of each run, counted in their order."""
    same = np.stack([runs.params, runs.tokens, runs.unique_tokens], axis=1)
    _, first, inverse = np.unique(same, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def resample_weights(
    cells: Int[np.ndarray, "P"], resamples: int, seed: int
) -> Float[np.ndarray, "R P"]:
    """How often each run is drawn in each bootstrap resample: a cell with all of its runs.

    Seeds of one cell share what the law misses there, so they are no draws of their own.

    NumPy's first generator, whose stream no release changes: without replicates, seed 42 draws the
    very resamples of Besiroglu et al. 2024.
    """
    draws = np.random.RandomState(seed)
    count = int(cells.max()) + 1
    counts = [
        np.bincount(draws.choice(count, count, replace=True), minlength=count)
        for _ in range(resamples)
    ]
    return np.array(counts, dtype=np.float64).reshape(resamples, count)[:, cells]


def seed_noise(runs: Runs) -> SeedNoise | None:
    """What replicates say of noise; None where there are none."""
    numbers = cell_numbers(runs)
    cells, squares, relative, freedom = [], 0.0, 0.0, 0
    for number in range(int(numbers.max()) + 1):
        of_cell = np.flatnonzero(numbers == number)
        if len(of_cell) < 2:
            continue
        losses, first = runs.loss[of_cell], of_cell[0]
        cells.append(
            Cell(
                float(runs.params[first]),
                float(runs.tokens[first]),
                len(of_cell),
                float(np.std(losses, ddof=1)),
            )
        )
        squares += float(np.sum((losses - losses.mean()) ** 2))
        relative += float(np.sum((np.log(losses) - np.log(losses).mean()) ** 2))
        freedom += len(of_cell) - 1
    if not cells:
        return None
    return SeedNoise(
        cells=tuple(cells),
        pooled=float(np.sqrt(squares / freedom)),
        relative=float(np.sqrt(relative / freedom)),
    )
