"""Published laws, with unrounded constants, their sources and how far their data reach."""

import difflib
import math

from llama_jax.scaling.laws import FrontierLaw, Law, LossLaw, Provenance
from llama_jax.scaling.repeated import MUENNIGHOFF_REPETITION

# "Over 400 models from 70M to over 16B parameters on 5B to 500B tokens" (abstract); budgets of
# the isoFLOP profiles 6e18 to 3e21 (section 3.2).
_CHINCHILLA = {
    "counting": "all parameters; 6ND",
    "params_range": (70e6, 16e9),
    "tokens_range": (5e9, 500e9),
    "flops_range": (6e18, 3e21),
}
# The brackets of Table 2 are the 10th and 90th percentiles of a bootstrap.
_TABLE_2 = 0.80

CHINCHILLA_1 = FrontierLaw(
    about=Provenance(
        name="chinchilla-1",
        source="Hoffmann et al. 2022 (arXiv:2203.15556), approach 1: power law through the rows of "
        "Table 3; interval of Table 2",
        **_CHINCHILLA,
    ),
    coefficient=0.09916,
    exponent=0.4981,
    exponent_interval=(0.488, 0.502),
    exponent_level=_TABLE_2,
)
CHINCHILLA_2 = FrontierLaw(
    about=Provenance(
        name="chinchilla-2",
        source="Hoffmann et al. 2022 (arXiv:2203.15556), approach 2: power law through the rows of "
        "Table A3; interval of Table 2",
        **_CHINCHILLA,
    ),
    coefficient=0.1449,
    exponent=0.4899,
    exponent_interval=(0.462, 0.534),
    exponent_level=_TABLE_2,
)
CHINCHILLA_3 = LossLaw(
    about=Provenance(
        name="chinchilla-3",
        source="Hoffmann et al. 2022 (arXiv:2203.15556), approach 3: the unrounded constants of "
        "the paper's own TeX; interval of Table 2",
        note="its interval is too narrow for its data (Besiroglu et al. 2024, arXiv:2404.10102)",
        **_CHINCHILLA,
    ),
    A=math.exp(6.0073404),
    B=math.exp(6.0179186),
    E=math.exp(0.5267228),
    alpha=0.33917084,
    beta=0.2849083,
    exponent_interval=(0.454, 0.455),
    exponent_level=_TABLE_2,
)
# Never for a plan: at 5.76e23 FLOPs they give 32B parameters, the unrounded constants 40B.
CHINCHILLA_3_ROUNDED = LossLaw(
    about=Provenance(
        name="chinchilla-3-rounded",
        source="Hoffmann et al. 2022 (arXiv:2203.15556), appendix D.2, as printed",
        note="rounded constants",
        **_CHINCHILLA,
    ),
    A=406.4,
    B=410.7,
    E=1.69,
    alpha=0.34,
    beta=0.28,
)
BESIROGLU = LossLaw(
    about=Provenance(
        name="besiroglu",
        source="Besiroglu et al. 2024 (arXiv:2404.10102): 240 points of Chinchilla's figure 4, "
        "constants of their notebook",
        counting="all parameters; 6ND",
        params_range=(57.3e6, 16.2e9),
        tokens_range=(0.819e9, 318e9),
        flops_range=(1.40e18, 1.30e22),
    ),
    A=482.00572,
    B=2085.43420,
    E=1.81686,
    alpha=0.34781,
    beta=0.36585,
    # Of `llama-jax scaling fit` on the same 240 points, 4,000 resamples, seed 42.
    covariance=(
        (0.06663102, -0.02776427, 0.002135327, 0.003971847, -0.001390586),
        (-0.02776427, 0.1772159, 0.00359976, -0.001723625, 0.008666605),
        (0.002135327, 0.00359976, 0.0001988127, 0.0001261216, 0.0001753651),
        (0.003971847, -0.001723625, 0.0001261216, 0.0002370824, -8.638395e-05),
        (-0.001390586, 0.008666605, 0.0001753651, -8.638395e-05, 0.0004241071),
    ),
)
_LLAMA_3_TOKENS = (0.2994, 0.5368)  # D = 0.2994 C^0.5368
LLAMA_3 = FrontierLaw(
    about=Provenance(
        name="llama3",
        source="Grattafiori et al. 2024 (arXiv:2407.21783), section 3.2.1: D = 0.2994 C^0.5368 "
        "through the 133 digitised points of figure 2",
        counting="all parameters; 6ND",
        # Section 3.2.1: 40M to 16B parameters, 6e18 to 1e22 FLOPs. How many tokens its runs had is
        # not told; those of its best ones are.
        params_range=(40e6, 16e9),
        tokens_range=(
            _LLAMA_3_TOKENS[0] * 6e18 ** _LLAMA_3_TOKENS[1],
            _LLAMA_3_TOKENS[0] * 1e22 ** _LLAMA_3_TOKENS[1],
        ),
        flops_range=(6e18, 1e22),
        note="the paper prints (0.29, 0.53), whose digits give 10.5T tokens at 3.8e25, not 16.55T",
    ),
    coefficient=1 / (6 * _LLAMA_3_TOKENS[0]),
    exponent=1 - _LLAMA_3_TOKENS[1],
)
# Constants with which Sardana's published examples come out; the paper's own count of them.
SARDANA = LossLaw(
    about=Provenance(
        name="sardana",
        source="Sardana et al. 2024 (arXiv:2401.00448): Chinchilla's rounded A, B and E with "
        "exponents that reproduce its two examples",
        **_CHINCHILLA,
    ),
    A=406.4,
    B=410.7,
    E=1.69,
    alpha=0.336,
    beta=0.283,
)
MUENNIGHOFF = LossLaw(
    about=Provenance(
        name="muennighoff",
        source="Muennighoff et al. 2023 (arXiv:2305.16264), huggingface/datablations, README",
        counting="all parameters; 6ND",
        params_range=(7.1e6, 8.67e9),
        tokens_range=(0.1e9, 900e9),
        flops_range=(6 * 7.1e6 * 0.1e9, 6 * 8.67e9 * 178e9),
        note="its losses are not calibrated; only comparisons between them mean something",
    ),
    A=math.exp(6.255414),
    B=math.exp(7.3049974),
    E=math.exp(0.6254804),
    alpha=0.3526596,
    beta=0.3526596,
    repetition=MUENNIGHOFF_REPETITION,
)

PLANNERS: dict[str, Law] = {
    law.about.name: law
    for law in (CHINCHILLA_3, BESIROGLU, CHINCHILLA_1, CHINCHILLA_2, LLAMA_3, MUENNIGHOFF)
}
# The first one is the plan.
DEFAULT_LAWS = ("besiroglu", "chinchilla-3", "chinchilla-1", "chinchilla-2", "llama3")


def find_law(name: str) -> Law:
    """The published law that `--law` names.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PLANNERS:
        close = difflib.get_close_matches(name, PLANNERS, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {_known()}."
        raise ValueError(f"--law={name!r} is no law and no file. {hint}")
    return PLANNERS[name]


def _known() -> str:
    return ", ".join(PLANNERS)
