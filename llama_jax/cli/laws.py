"""Laws as the command line names them."""

from collections.abc import Sequence
from pathlib import Path

from llama_jax.recipe import from_json
from llama_jax.scaling.laws import Law, LossLaw
from llama_jax.scaling.published import find_law


def read_laws(names: Sequence[str]) -> list[Law]:
    """Published laws by name, fitted ones by the file that `scaling fit` wrote.

    Raises:
        ValueError: If there is no such law, or the file holds none.
    """
    return [_read_law(name) for name in names]


def _read_law(name: str) -> Law:
    path = Path(name)
    if path.suffix != ".json" and not path.is_file():
        return find_law(name)
    if not path.is_file():
        raise ValueError(f"--law={name!r}: there is no such file.")
    try:
        return from_json(path.read_text(), LossLaw)
    except ValueError as refusal:
        raise ValueError(
            f"--law={name!r} holds no law: {refusal} `llama-jax scaling fit --out` writes one."
        ) from refusal
