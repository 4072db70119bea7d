"""Laws of loss fitted to runs, with bootstrap intervals."""

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import Float

from llama_jax.scaling.laws import NO_LIMIT, LossLaw, Provenance
from llama_jax.scaling.replicates import cell_numbers, resample_weights
from llama_jax.scaling.robust import Solved, solve
from llama_jax.scaling.runs import Runs, check_resamples, check_spread

# Hoffmann et al. 2022, appendix D.2.
HUBER_DELTA = 1e-3
# At this threshold the Huber loss is least absolute deviations, to which the likelihood comes down
# whose optimum Besiroglu et al. 2024 print: its scale puts every residual beyond the threshold.
# Their standard errors are those of the plain objective.
ABSOLUTE_DELTA = 1e-5
# A law has a limit above 0, and a logarithm of it.
LEAST_LIMIT = float(np.finfo(float).tiny)
_FULL = np.eye(5)
# (log A, log B, E, gamma) with one exponent for both terms.
_TIED = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], float)
_SEED_UPDATES, _SEEDS_KEPT = 10, 64
# Where a term falls by so much from the smallest value to the next one, the runs show no more of it
# than that it is gone, and any larger exponent does as well.
_GONE = 1e3
# Of the loss: what a term that says nothing falls by between the ends of the runs.
_NOTHING = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is summed over the runs; a sum and not a mean.

    Attributes:
        delta: Threshold of the Huber loss; `ABSOLUTE_DELTA` is least absolute deviations.
        tied: Whether both exponents are one.
        log_loss: Whether residuals are of the log loss.
    """

    delta: float = HUBER_DELTA
    tied: bool = False
    log_loss: bool = True


CHINCHILLA = Objective()
# Gadre et al. 2024 (arXiv:2403.08540): least squares on the loss itself, exponents tied.
OVERTRAIN = Objective(delta=1e3, tied=True, log_loss=False)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A law, how well it fits, and what it would have been with other runs.

    Attributes:
        law: With the covariance of its constants, where there were resamples.
        objective: Its least value.
        log_resamples: (log A, log B, log E, alpha, beta) for each bootstrap resample; none where
            the runs, seeds not counted, are fewer than twice the constants.
        residuals: Measured minus fitted log loss of each run.
    """

    law: LossLaw
    objective: float
    log_resamples: Float[np.ndarray, "R 5"]
    residuals: Float[np.ndarray, "P"]

    @property
    def resamples(self) -> Float[np.ndarray, "R 5"]:
        """(A, B, E, alpha, beta); infinite where runs that a resample left out had set them."""
        with np.errstate(over="ignore"):
            return np.concatenate(
                [np.exp(self.log_resamples[:, :3]), self.log_resamples[:, 3:]], axis=1
            )

    def losses(self, params: float, tokens: float) -> Float[np.ndarray, "R"]:
        """What each resample says of a run; none where there were no resamples."""
        log_A, log_B, log_E, alpha, beta = self.log_resamples.T
        of_size = np.exp(log_A - alpha * np.log(params))
        return np.exp(log_E) + of_size + np.exp(log_B - beta * np.log(tokens))


def fit_loss(
    runs: Runs,
    objective: Objective = CHINCHILLA,
    *,
    resamples: int = 4000,
    seed: int = 0,
    name: str = "fit",
) -> Fit:
    """Fits `E + A / N^alpha + B / D^beta`.

    Objective and starts are by default those of Hoffmann et al. 2022 (arXiv:2203.15556), appendix
    D.2; the optimiser is not, because theirs stops early where the sum is made a mean.

    Args:
        runs: At least as many as there are constants, not all on one line.
        objective: What is minimised.
        resamples: Bootstrap resamples of the runs, all seeds of one together; 0 leaves intervals
            out.
        seed: Of the resamples.
        name: Of the law.

    Raises:
        ValueError: If the runs cannot tell the constants.
    """
    surface = _Surface(runs, objective)
    check_spread(runs, constants=surface.num_constants)
    check_resamples(resamples)
    first = max(HUBER_DELTA, objective.delta)
    seeds = solve(
        surface.predict,
        surface.targets,
        surface.starts(),
        delta=first,
        lower=surface.lower,
        max_updates=_SEED_UPDATES,
    )
    nearest = np.argsort(seeds.objective)[:_SEEDS_KEPT]
    best = _descend(surface, seeds.constants[nearest], objective.delta)
    chosen = best.constants[[np.argmin(best.objective)]]
    draws = np.zeros((0, surface.num_constants))
    cells = cell_numbers(runs)
    if resamples and cells.max() + 1 >= 2 * surface.num_constants:
        weights = resample_weights(cells, resamples, seed)
        starts = np.repeat(chosen, resamples, axis=0)
        draws = _descend(surface, starts, objective.delta, weights).constants
    vectors = surface.vectors(np.concatenate([chosen, draws]))
    law = _law(runs, vectors, name)
    return Fit(
        law=law,
        objective=float(np.min(best.objective)),
        log_resamples=vectors[1:],
        residuals=np.log(runs.loss) - surface.log_loss(chosen)[0][0],
    )


def _descend(
    surface: "_Surface", starts: np.ndarray, delta: float, weights: np.ndarray | None = None
) -> Solved:
    """Solves at falling thresholds: the kinks of a small one would hold a far start fast."""

    def at(step: float, starts: np.ndarray) -> Solved:
        return solve(
            surface.predict,
            surface.targets,
            starts,
            delta=step,
            lower=surface.lower,
            weights=weights,
        )

    step = max(HUBER_DELTA, delta)
    solved = at(step, starts)
    while step > delta:
        step = max(step / 10, delta)
        solved = at(step, solved.constants)
    return solved


def _law(runs: Runs, vectors: np.ndarray, name: str) -> LossLaw:
    for axis, values, log_constant, exponent in (
        ("parameters", runs.params, vectors[0, 0], vectors[0, 3]),
        ("tokens", runs.tokens, vectors[0, 1], vectors[0, 4]),
    ):
        logs = np.log(np.unique(values))
        least, most = np.exp(log_constant - exponent * logs[[-1, 0]])
        if most - least < _NOTHING * runs.loss.min():
            raise ValueError(
                f"RUNS do not show how the loss depends on {axis}: more of them do not lower it. "
                "Add runs that are longer, or further apart."
            )
        gone = exponent * (logs[1] - logs[0]) > np.log(_GONE)
        if gone or log_constant > np.log(np.finfo(float).max):
            raise ValueError(
                f"RUNS do not show how the loss depends on {axis}: more of them make no "
                "difference beyond the smallest runs. Add runs that are longer, or further apart."
            )
    A, B, E = (float(value) for value in np.exp(vectors[0, :3]))
    covariance = ()
    if len(vectors) > 2:
        draws = vectors[1:].copy()
        # Limits that no text can tell from 0 are one: their logarithms spread without an end.
        draws[:, 2] = np.maximum(draws[:, 2], np.log(NO_LIMIT))
        covariance = tuple(tuple(map(float, row)) for row in np.cov(draws.T))
    about = provenance(runs, name, limit=E)
    alpha, beta = float(vectors[0, 3]), float(vectors[0, 4])
    return LossLaw(about=about, A=A, B=B, E=E, alpha=alpha, beta=beta, covariance=covariance)


def provenance(runs: Runs, name: str, *, limit: float) -> Provenance:
    """Of a law fitted to runs, which is said to have no limit where that is about 0."""
    return Provenance(
        name=name,
        source=f"fit to {len(runs)} runs",
        counting="parameters as in the table; 6ND",
        params_range=_range(runs.params),
        tokens_range=_range(runs.tokens),
        flops_range=_range(6 * runs.params * runs.tokens),
        note="" if limit >= NO_LIMIT else "the runs show no limit of the loss: E is about 0",
    )


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


class _Surface:
    """The loss at the runs, with both terms' numerators taken at the middle of the runs.

    In (log A - alpha x, log B - beta z, E, ...) at the runs' mean x and z the constants hardly
    depend on one another, and the steps are well conditioned. E is no logarithm, of which the loss
    has no slope where E is near 0: a resample that begins there would never leave it.
    """

    def __init__(self, runs: Runs, objective: Objective):
        x, z = np.log(runs.params), np.log(runs.tokens)
        self._middle = np.array([x.mean(), z.mean()])
        self._x, self._z = x - self._middle[0], z - self._middle[1]
        self._tie = _TIED if objective.tied else _FULL
        self._in_logs = objective.log_loss
        self.num_constants = self._tie.shape[1]
        self.lower = np.full(self.num_constants, -np.inf)
        self.lower[2] = 0.0
        self.targets = np.log(runs.loss) if objective.log_loss else runs.loss

    def starts(self) -> np.ndarray:
        """Hoffmann's grid."""
        tied = self.num_constants == 4
        exponents = (0.0, 0.5, 1.0, 1.5, 2.0)
        numerators = range(0, 26, 5)
        grid = np.array(
            [
                (a, b, math.exp(e), *both)
                for a, b in itertools.product(numerators, numerators)
                for e in (-1.0, -0.5, 0.0, 0.5, 1.0)
                for both in (
                    ((alpha,) for alpha in exponents)
                    if tied
                    else itertools.product(exponents, exponents)
                )
            ],
            dtype=np.float64,
        )
        grid[:, 0] -= grid[:, 3] * self._middle[0]
        grid[:, 1] -= grid[:, -1] * self._middle[1]
        return grid

    def vectors(self, constants: np.ndarray) -> np.ndarray:
        """(log A, log B, log E, alpha, beta)."""
        full = constants @ self._tie.T
        full[:, 0] += full[:, 3] * self._middle[0]
        full[:, 1] += full[:, 4] * self._middle[1]
        full[:, 2] = np.log(np.maximum(full[:, 2], LEAST_LIMIT))
        return full

    def predict(self, constants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the objective compares with `targets`, "R P", and its derivatives "R P K"."""
        logs, slopes = self.log_loss(constants)
        if self._in_logs:
            return logs, slopes
        # A start may be far out; its loss only has to be finite.
        losses = np.exp(np.minimum(logs, 300.0))
        return losses, slopes * losses[:, :, None]

    def log_loss(self, constants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log losses "R P" and their derivatives "R P K"."""
        full = constants @ self._tie.T
        by_params = full[:, :1] - full[:, 3:4] * self._x
        by_tokens = full[:, 1:2] - full[:, 4:5] * self._z
        limit = full[:, 2:3]
        top = np.maximum(np.maximum(by_params, by_tokens), np.log(np.maximum(limit, LEAST_LIMIT)))
        total = np.exp(by_params - top) + np.exp(by_tokens - top) + limit * np.exp(-top)
        shares = [np.exp(term - top) / total for term in (by_params, by_tokens)]
        one = np.broadcast_to(np.exp(-top) / total, shares[0].shape)
        slopes = np.stack([*shares, one, -self._x * shares[0], -self._z * shares[1]], axis=-1)
        if self.num_constants < 5:
            slopes = slopes @ self._tie
        return top + np.log(total), slopes
