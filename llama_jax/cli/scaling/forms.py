"""The five forms of `scaling fit`: each fitted, told and drawn in one way."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_jax.scaling.estimates import Estimate, constants, estimate, estimate_limit

if TYPE_CHECKING:
    import numpy as np

    from llama_jax.scaling.fit import Fit
    from llama_jax.scaling.fit_repeated import RepeatedFit
    from llama_jax.scaling.frontier import FrontierFit
    from llama_jax.scaling.laws import Law
    from llama_jax.scaling.runs import Runs

Form = Literal["chinchilla", "isoflop", "envelope", "overtrain", "data-constrained"]
Point = tuple[float, float, float]  # parameters, tokens and unique tokens
_RESAMPLES = {"data-constrained": 1000}
_WITHOUT_LOSS = ("isoflop", "envelope")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FormFit:
    """What a form says of runs.

    Attributes:
        law: For `plan`.
        formula: Of the law, and how it was fitted, for people.
        estimates: Its constants.
        details: What else there is, by name, for programs.
        notes: What a reader should know, in sentences.
        left_out: What of the runs said nothing, such as budgets without a minimum.
        draw: Writes the picture.
        residuals: Measured minus fitted log loss of each run; None without a loss.
        predict: The loss of another run; None without a loss.
        loss_fit: Of the forms over parameters and tokens alone; else None.
    """

    law: "Law"
    formula: str
    estimates: dict[str, Estimate]
    details: dict[str, Any]
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    draw: Callable[[Path], None]
    residuals: "np.ndarray | None" = None
    predict: Callable[[Point], Estimate] | None = None
    loss_fit: "Fit | None" = None


def check_form(
    form: Form, *, resamples: int | None, absolute: bool = False, predict: object = ()
) -> None:
    """Raises ValueError where an option means nothing to a form."""
    if absolute and form != "chinchilla":
        raise ValueError(f"--absolute is for --form chinchilla, not {form}.")
    if predict and form in _WITHOUT_LOSS:
        raise ValueError(
            f"--predict needs a loss, and --form {form} tells best sizes alone; use chinchilla, "
            "overtrain or data-constrained."
        )
    if resamples and form == "envelope":
        raise ValueError(
            f"--resamples={resamples} is not for --form envelope: without some of its runs a curve "
            "has holes, which move the envelope further than noise does. It has no interval."
        )


def fit_form(
    form: Form, runs: "Runs", *, resamples: int | None = None, seed: int = 0, absolute: bool = False
) -> FormFit:
    """Fits a form to runs, with its own number of resamples where none is given."""
    count = _RESAMPLES.get(form, 4000) if resamples is None else resamples
    if form == "data-constrained":
        return _fit_repeated(runs, count, seed)
    if form in _WITHOUT_LOSS:
        return _fit_frontier(form, runs, count, seed)
    return _fit_loss(form, runs, count, seed, absolute)


def _fit_loss(form: Form, runs: "Runs", resamples: int, seed: int, absolute: bool) -> FormFit:
    from llama_jax.scaling.fit import ABSOLUTE_DELTA, CHINCHILLA, OVERTRAIN, Objective, fit_loss
    from llama_jax.scaling.pictures import plot_fit

    objective = OVERTRAIN if form == "overtrain" else CHINCHILLA
    if absolute:
        objective = Objective(delta=ABSOLUTE_DELTA)
    fit = fit_loss(runs, objective, resamples=resamples, seed=seed)
    alphas, betas = fit.resamples[:, 3], fit.resamples[:, 4]
    exponent = estimate(fit.law.params_exponent, betas / (alphas + betas))
    how = "Huber loss on the log loss (Hoffmann et al. 2022)"
    if absolute:
        how = "least absolute deviations of the log loss"
    if form == "overtrain":
        how = "alpha = beta, least squares of the loss (Gadre et al. 2024)"
    return FormFit(
        law=fit.law,
        formula=f"L(N, D) = E + A/N^alpha + B/D^beta, {how}",
        estimates=constants(fit) | {"params_exponent": exponent},
        details=_quality(fit),
        notes=_notes(fit, resamples, len(fit.log_resamples)),
        draw=lambda path: plot_fit(runs, fit, path),
        residuals=fit.residuals,
        predict=lambda at: estimate(fit.law.loss(*at[:2]), fit.losses(*at[:2])),
        loss_fit=fit,
    )


def _fit_repeated(runs: "Runs", resamples: int, seed: int) -> FormFit:
    from llama_jax.scaling.fit_repeated import fit_repeated
    from llama_jax.scaling.pictures import plot_repeated

    fit = fit_repeated(runs, resamples=resamples, seed=seed)
    law = fit.law
    values = (law.A, law.B, law.E, law.alpha, fit.token_decay, fit.param_decay)
    names = ("A", "B", "E", "alpha = beta", "R_D*", "R_N*")
    estimates = {
        name: (estimate_limit if name == "E" else estimate)(value, fit.resamples[:, i])
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    }
    return FormFit(
        law=law,
        formula=(
            "L(N, D) = E + A/N'^alpha + B/D'^alpha, N' and D' what parameters and repeated tokens "
            "are worth, Huber loss on the log loss (Muennighoff et al. 2023)"
        ),
        estimates=estimates,
        details=_quality(fit) | {"runs_that_repeat": fit.num_repeated},
        notes=_notes(fit, resamples, len(fit.resamples)),
        draw=lambda path: plot_repeated(runs, fit, path),
        residuals=fit.residuals,
        predict=lambda at: estimate(fit.limit(at[2]).loss(law, at[0], at[1]), fit.losses(*at)),
    )


def _fit_frontier(form: Form, runs: "Runs", resamples: int, seed: int) -> FormFit:
    from llama_jax.scaling.frontier import fit_envelope, fit_isoflop
    from llama_jax.scaling.pictures import plot_frontier

    fit: FrontierFit
    note = ""
    if form == "isoflop":
        fit = fit_isoflop(runs, resamples=resamples, seed=seed)
        if fit.share_lost:
            note = (
                f"{fit.share_lost:.1%} of the resamples are not in the interval: a budget of "
                "theirs has no minimum among its sizes"
            )
    else:
        fit = fit_envelope(runs)
        note = "no interval: without some of its runs a curve has holes, which move the envelope"
    return FormFit(
        law=fit.law,
        formula=f"N = coefficient * C^params_exponent through {len(fit.points)} best sizes",
        estimates={
            "params_exponent": estimate(fit.law.exponent, fit.exponents),
            "coefficient": Estimate(fit.law.coefficient),
        },
        details={"best_sizes": len(fit.points), "share_of_resamples_lost": fit.share_lost},
        notes=(note,) if note else (),
        left_out=fit.left_out,
        draw=lambda path: plot_frontier(runs, fit, path),
    )


def _quality(fit: "Fit | RepeatedFit") -> dict[str, Any]:
    import numpy as np

    return {
        "objective": fit.objective,
        "rms_residual": float(np.sqrt(np.mean(fit.residuals**2))),
    }


def _notes(fit: "Fit | RepeatedFit", asked: int, given: int) -> tuple[str, ...]:
    notes = [fit.law.about.note] if fit.law.about.note else []
    if asked and not given:
        notes.append(
            "no intervals: the runs, seeds not counted, are fewer than twice the constants"
        )
    return tuple(notes)
