"""The fit of the step-time model to published runs. docs/step_time.md has what comes out."""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Sequence

from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program
from llama_jax.aot.step_time import Calibration, predict_step_time

# Where the least error is looked for, in hundredths: estimates are never too long by much, kernels
# never faster than the peak.
_CYCLES, _KERNELS = (80, 200), (20, 100)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """A run whose speed somebody measured and published.

    Attributes:
        name: Who, what and where.
        recipe: Ours of the same model.
        topology: That our program is compiled for; theirs may have had more chips.
        rows_per_chip: Of `seq_len` tokens, in our program; theirs may have had more.
        seq_len: Tokens of a row.
        overrides: Of our recipe, as the command line takes them.
        tokens_per_second_per_chip: As published, or from the published time of a step.
        source: Where.
    """

    name: str
    recipe: str
    topology: str
    rows_per_chip: float
    seq_len: int
    overrides: tuple[str, ...]
    tokens_per_second_per_chip: float
    source: str

    @property
    def seconds(self) -> float:
        """Of as many tokens as a step of ours has."""
        return self.rows_per_chip * self.seq_len / self.tokens_per_second_per_chip


_AXLEARN = "Lee et al. 2025 (arXiv:2507.05411), table of iteration times"
_FUJI = "comments of axlearn/experiments/text/gpt/fuji.py, commit 01ebc3f"
_TIERS = "MaxText 0.2.0, docs/reference/models/tiering.md"

_V5P_70B = ("--compute.remat", "attention", "--mesh.fsdp-line", "4")
_V5P_7B = ("--compute.remat", "qkv", "--mesh.fsdp-line", "2")
_V5E_7B = ("--compute.remat", "qkv", "--mesh.fsdp-line", "4")
_V6E_70B = ("--compute.remat", "qkv", "--mesh.fsdp", "16", "--mesh.fsdp-line", "16")

PUBLISHED_RUNS = (
    PublishedRun(
        name="AXLearn LLaMA-2 7B, v5p, 256 chips",
        recipe="llama2_7b",
        topology="v5p:2x4x4",
        rows_per_chip=4,
        seq_len=4096,
        overrides=_V5P_7B,
        tokens_per_second_per_chip=4 * 4096 / 2.5,
        source=_AXLEARN,
    ),
    PublishedRun(
        name="AXLearn LLaMA-2 70B, v5p, 512 chips",
        recipe="llama2_70b",
        topology="v5p:4x4x4",
        rows_per_chip=2,
        seq_len=4096,
        overrides=_V5P_70B,
        tokens_per_second_per_chip=2 * 4096 / 11.6,
        source=_AXLEARN,
    ),
    PublishedRun(
        name="MaxText LLaMA-2 70B, v5p, 512 chips",
        recipe="llama2_70b",
        topology="v5p:4x4x4",
        rows_per_chip=2,
        seq_len=4096,
        overrides=_V5P_70B,
        tokens_per_second_per_chip=692,
        source=_TIERS,
    ),
    PublishedRun(
        name="AXLearn LLaMA-2 7B, v5e, 4 x 256 chips",
        recipe="llama2_7b",
        topology="v5e:4x4",
        rows_per_chip=1,
        seq_len=4096,
        overrides=_V5E_7B,
        tokens_per_second_per_chip=4096 / 2.21,
        source=_FUJI,
    ),
    PublishedRun(
        name="MaxText LLaMA-3.1 8B, v6e, 256 chips",
        recipe="llama3_1_8b",
        topology="v6e:16x16",
        rows_per_chip=2,
        seq_len=8192,
        overrides=("--compute.remat", "qkv"),
        tokens_per_second_per_chip=7207,
        source=_TIERS,
    ),
    PublishedRun(
        name="MaxText LLaMA-2 70B, v6e, 256 chips",
        recipe="llama2_70b",
        topology="v6e:16x16",
        rows_per_chip=1,
        seq_len=4096,
        overrides=_V6E_70B,
        tokens_per_second_per_chip=900,
        source=_TIERS,
    ),
    PublishedRun(
        name="MaxText LLaMA-3.1 70B, v6e, 256 chips",
        recipe="llama3_1_70b",
        topology="v6e:16x16",
        rows_per_chip=1,
        seq_len=8192,
        overrides=("--compute.remat", "attention"),
        tokens_per_second_per_chip=960,
        source=_TIERS,
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A program that we compiled, and the time that a published run of its kind took.

    Attributes:
        name: Of the published run.
        program: As read.
        machine: Of both.
        seconds: Published.
    """

    name: str
    program: Program
    machine: Machine
    seconds: float

    def error(self, calibration: Calibration) -> float:
        """Predicted over published time of a step, less one."""
        predicted = predict_step_time(self.program, self.machine, calibration).seconds
        return predicted / self.seconds - 1


def fit(samples: Sequence[Sample]) -> Calibration:
    """The calibration of least mean absolute error."""

    def mean_error(calibration: Calibration) -> float:
        return sum(abs(sample.error(calibration)) for sample in samples) / len(samples)

    def best(cycles: range, kernels: range) -> tuple[int, int]:
        return min(
            itertools.product(cycles, kernels),
            key=lambda pair: mean_error(_calibration(*pair)),
        )

    cycles, kernels = best(range(*_CYCLES, 10), range(*_KERNELS, 10))
    return _calibration(
        *best(
            range(max(_CYCLES[0], cycles - 9), cycles + 10),
            range(max(_KERNELS[0], kernels - 9), min(_KERNELS[1], kernels + 9) + 1, 2),
        )
    )


def _calibration(cycles: int, kernels: int) -> Calibration:
    return Calibration(cycles=cycles / 100, kernels=kernels / 100)


def leave_one_out(samples: Sequence[Sample]) -> list[float]:
    """The error of each sample under the fit to all the others."""
    return leave_out(samples, id)


def leave_out(samples: Sequence[Sample], kind: Callable[[Sample], Hashable]) -> list[float]:
    """The error of each sample under the fit to those of other kinds.

    Args:
        samples: Of at least two kinds.
        kind: What vouches for a sample: rows of one program, or of one generation, are alike.
    """
    fits = {
        left_out: fit([sample for sample in samples if kind(sample) != left_out])
        for left_out in set(map(kind, samples))
    }
    return [sample.error(fits[kind(sample)]) for sample in samples]


def program_of(sample: Sample) -> Hashable:
    """Published runs of one model and chip stand beside the same program of ours."""
    return sample.program


def generation_of(sample: Sample) -> Hashable:
    """The kind of chip."""
    return sample.machine.pod.chip.name
