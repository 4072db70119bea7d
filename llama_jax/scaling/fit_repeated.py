"""How fast repeated tokens lose their worth, fitted to runs."""

import dataclasses

import numpy as np
from jaxtyping import Float

from llama_jax.scaling.fit import (
    HUBER_DELTA,
    LEAST_LIMIT,
    Objective,
    fit_loss,
    provenance,
)
from llama_jax.scaling.laws import LossLaw, Repetition
from llama_jax.scaling.repeated import DataLimit
from llama_jax.scaling.replicates import cell_numbers, resample_weights
from llama_jax.scaling.robust import solve
from llama_jax.scaling.runs import Runs, check_resamples, make_runs

_LEAST_REPEATED = 4
_STEP = 1e-5
# Repetitions after which a token is worth 1/e: from hardly any to hardly ever.
_STARTS = (1.0, 5.0, 30.0)
_LARGEST_LOG = 12.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedFit:
    """A law of fresh tokens, and what repetition does to it.

    Attributes:
        law: Of fresh tokens, exponents tied; its `repetition` has both decays.
        token_decay: `R_D*` of `DataLimit`.
        param_decay: `R_N*` of `DataLimit`.
        resamples: (A, B, E, alpha, R_D*, R_N*) for each bootstrap resample.
        objective: Sum of Huber losses over residuals of the log loss.
        residuals: Measured minus fitted log loss of each run.
        num_repeated: Runs that read tokens more than once.
    """

    law: LossLaw
    token_decay: float
    param_decay: float
    resamples: Float[np.ndarray, "R 6"]
    objective: float
    residuals: Float[np.ndarray, "P"]
    num_repeated: int

    def limit(self, unique_tokens: float) -> DataLimit:
        """So many unique tokens, with the fitted decays."""
        assert self.law.repetition is not None
        return DataLimit(unique_tokens=unique_tokens, repetition=self.law.repetition)

    def losses(self, params: float, tokens: float, unique_tokens: float) -> Float[np.ndarray, "R"]:
        """What each resample says of a run; none where there were no resamples."""
        run = make_runs([params], [tokens], [1.0])
        surface = _Surface(dataclasses.replace(run, unique_tokens=np.array([unique_tokens])))
        return surface.losses(self.resamples)[:, 0]


def fit_repeated(runs: Runs, *, resamples: int = 1000, seed: int = 0) -> RepeatedFit:
    """Fits law and decays together, beginning from a law that knows no repetition.

    Source: Muennighoff et al. 2023 (arXiv:2305.16264), section 3.1 and appendix A; there the law is
    fitted first and the decays after it, which leaves in the law what its runs lose to parameters
    that one epoch cannot feed.

    Raises:
        ValueError: If too few runs repeat tokens.
    """
    check_resamples(resamples)
    repeated = runs.tokens > 1.001 * runs.unique_tokens
    count = int(np.sum(repeated))
    if count < _LEAST_REPEATED:
        raise ValueError(
            f"RUNS has {count} runs whose tokens exceed their unique tokens; {_LEAST_REPEATED} are "
            "needed to tell what repetition costs (column unique_tokens, or U)."
        )
    base = fit_loss(runs, Objective(tied=True), resamples=0).law
    surface = _Surface(runs)
    starts = np.array(
        [
            (*surface.centred(base), np.log(tokens), np.log(params))
            for tokens in _STARTS
            for params in _STARTS
        ]
    )
    found = solve(surface.predict, surface.targets, starts, delta=HUBER_DELTA, lower=surface.lower)
    best = found.constants[[np.argmin(found.objective)]]
    draws = np.zeros((0, 6))
    if resamples:
        weights = resample_weights(cell_numbers(runs), resamples, seed)
        many = np.repeat(best, resamples, axis=0)
        draws = solve(
            surface.predict,
            surface.targets,
            many,
            delta=HUBER_DELTA,
            lower=surface.lower,
            weights=weights,
        ).constants
    told = surface.told(np.concatenate([best, draws]))
    A, B, E, gamma, token_decay, param_decay = (float(value) for value in told[0])
    epochs = runs.tokens / runs.unique_tokens
    law = LossLaw(
        about=provenance(runs, "fit", limit=E),
        A=A,
        B=B,
        E=max(E, LEAST_LIMIT),
        alpha=gamma,
        beta=gamma,
        repetition=Repetition(
            source=f"a fit to {len(runs)} runs, {count} of which repeat",
            token_decay=token_decay,
            param_decay=param_decay,
            unique_range=(float(runs.unique_tokens.min()), float(runs.unique_tokens.max())),
            epochs_range=(1.0, float(epochs.max())),
        ),
    )
    return RepeatedFit(
        law=law,
        token_decay=token_decay,
        param_decay=param_decay,
        resamples=told[1:],
        objective=float(np.min(found.objective)),
        residuals=surface.targets - surface.predict(best)[0][0],
        num_repeated=count,
    )


class _Surface:
    """Log losses over (log A - gamma x, log B - gamma z, E, gamma, log R_D*, log R_N*)."""

    lower = np.array([-np.inf, -np.inf, 0.0, -np.inf, -np.inf, -np.inf])

    def __init__(self, runs: Runs):
        self._runs, self.targets = runs, np.log(runs.loss)
        self._middle = np.log(runs.params).mean(), np.log(runs.tokens).mean()
        self._fresh = np.minimum(runs.tokens, runs.unique_tokens)

    def centred(self, law: LossLaw) -> tuple[float, ...]:
        """The first four constants of a law."""
        a, b, _, gamma, _ = law.vector()
        return a - gamma * self._middle[0], b - gamma * self._middle[1], law.E, gamma

    def told(self, constants: np.ndarray) -> np.ndarray:
        """(A, B, E, gamma, R_D*, R_N*)."""
        u, v, E, gamma, tokens, params = constants.T
        a, b = u + gamma * self._middle[0], v + gamma * self._middle[1]
        decays = np.exp(np.clip((tokens, params), -_LARGEST_LOG, _LARGEST_LOG))
        return np.stack([np.exp(a), np.exp(b), E, gamma, *decays], axis=1)

    def losses(self, told: np.ndarray) -> np.ndarray:
        """Losses "R P" of constants as they are told."""
        A, B, E, gamma, tokens, params = told.T
        u, v = np.log(A) - gamma * self._middle[0], np.log(B) - gamma * self._middle[1]
        constants = np.stack([u, v, E, gamma, np.log(tokens), np.log(params)], axis=1)
        return np.exp(self._log_loss(constants))

    def predict(self, constants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log losses "R P" and their derivatives "R P 6", by small steps."""
        slopes = [
            (self._log_loss(constants + step) - self._log_loss(constants - step)) / (2 * _STEP)
            for step in np.eye(6) * _STEP
        ]
        return self._log_loss(constants), np.stack(slopes, axis=-1)

    def _log_loss(self, constants: np.ndarray) -> np.ndarray:
        u, v, E, gamma, tokens_decay, params_decay = constants.T[:, :, None]
        x, z = self._middle
        # With one exponent the best parameters for U tokens are U (A/B)^(1/gamma).
        balance = (u - v) / gamma + x - z
        base = np.minimum(np.log(self._runs.params), np.log(self._fresh) + balance)
        extra_params = self._runs.params * np.exp(-base) - 1
        extra_tokens = self._runs.tokens / self._fresh - 1
        params = base + _log_worth(extra_params, params_decay)
        tokens = np.log(self._fresh) + _log_worth(extra_tokens, tokens_decay)
        return np.log(E + np.exp(u - gamma * (params - x)) + np.exp(v - gamma * (tokens - z)))


def _log_worth(repeats: np.ndarray, log_decay: np.ndarray) -> np.ndarray:
    decay = np.exp(np.clip(log_decay, -_LARGEST_LOG, _LARGEST_LOG))
    return np.log1p(-decay * np.expm1(-np.maximum(repeats, 0) / decay))
