"""What was trained by others, to hold a law against."""

import dataclasses

from llama_jax.scaling.laws import Allocation, LossLaw
from llama_jax.scaling.serving import break_even_demand, demand_that_justifies


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RealRun:
    """A published run.

    Attributes:
        name: Of the model.
        at: Parameters and tokens.
        source: Where both are from.
    """

    name: str
    at: Allocation
    source: str


_LLAMA_1 = "Touvron et al. 2023 (arXiv:2302.13971), Table 2"
_LLAMA_2 = "Touvron et al. 2023 (arXiv:2307.09288), Table 1"
_LLAMA_3 = "Meta's Llama 3 and 3.1 model cards"
_CHINCHILLA = "Hoffmann et al. 2022 (arXiv:2203.15556), Table 1"

REAL_RUNS = tuple(
    RealRun(name=name, at=Allocation(params, tokens), source=source)
    for name, params, tokens, source in (
        ("GPT-3 175B", 175e9, 300e9, _CHINCHILLA),
        ("Gopher 280B", 280e9, 300e9, _CHINCHILLA),
        ("Chinchilla 70B", 70e9, 1.4e12, _CHINCHILLA),
        ("LLaMA-1 7B", 6.7e9, 1.0e12, _LLAMA_1),
        ("LLaMA-1 13B", 13.0e9, 1.0e12, _LLAMA_1),
        ("LLaMA-1 33B", 32.5e9, 1.4e12, _LLAMA_1),
        ("LLaMA-1 65B", 65.2e9, 1.4e12, _LLAMA_1),
        ("LLaMA-2 7B", 6.7e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 13B", 13.0e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 34B", 33.7e9, 2.0e12, _LLAMA_2),
        ("LLaMA-2 70B", 69.0e9, 2.0e12, _LLAMA_2),
        ("LLaMA-3 8B", 8.0e9, 15.0e12, _LLAMA_3),
        ("LLaMA-3 70B", 70.6e9, 15.0e12, _LLAMA_3),
        ("LLaMA-3.1 405B", 405.9e9, 15.6e12, _LLAMA_3),
    )
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A run as a law sees it.

    Attributes:
        run: That was trained.
        best: The law's choice at the run's compute.
        loss: Of the run, by the law; the runs' own data and tokenizers differ.
        lost: Nats per token above the law's choice.
        break_even: Served tokens from which the run is cheaper than the compute-optimal model of
            its loss; infinite where it has no fewer parameters.
        justified_by: Served tokens at which nothing of its loss is cheaper; negative where its
            parameters are more than any serving asks for.
        extrapolates: Which of params, tokens and FLOPs lie outside the law's data.
    """

    run: RealRun
    best: Allocation
    loss: float
    lost: float
    break_even: float
    justified_by: float
    extrapolates: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Under or over what least training compute takes."""
        ratio = self.run.at.tokens / self.best.tokens
        if 0.8 <= ratio <= 1.25:
            return "about right"
        return f"{'over' if ratio > 1 else 'under'} {max(ratio, 1 / ratio):.1f}x"


def compare(law: LossLaw) -> tuple[Comparison, ...]:
    """Every real run by one law."""
    return tuple(_compare(law, run) for run in REAL_RUNS)


def _compare(law: LossLaw, run: RealRun) -> Comparison:
    best, loss = law.optimum(run.at.flops), law.loss(*run.at)
    return Comparison(
        run=run,
        best=best,
        loss=loss,
        lost=loss - law.loss(*best),
        break_even=break_even_demand(law, run.at),
        justified_by=demand_that_justifies(law, run.at),
        extrapolates=law.about.extrapolates(run.at),
    )
