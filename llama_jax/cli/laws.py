"""Laws as the command line names them."""

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from llama_jax.recipe import from_json
from llama_jax.scaling.laws import FrontierLaw, Law, LossLaw
from llama_jax.scaling.published import PLANNERS, find_law


def read_laws(names: Sequence[str]) -> list[Law]:
    """Published laws by name, fitted ones by the file that `scaling fit` wrote.

    A fitted law is called by its file, and by the whole path where two files have one name.

    Raises:
        ValueError: If there is no such law, the file holds none, or a law is named twice.
    """
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise ValueError(f"--law names {twice[0]} twice; once is enough.")
    laws = {name: _read_law(name) for name in names}
    called = collections.Counter(Path(name).name for name in names if name not in PLANNERS)
    return [
        law
        if name in PLANNERS
        else _call(law, name if called[Path(name).name] > 1 else Path(name).name)
        for name, law in laws.items()
    ]


def _call(law: Law, name: str) -> Law:
    return dataclasses.replace(law, about=dataclasses.replace(law.about, name=name))


def _read_law(name: str) -> Law:
    path = Path(name)
    if name in PLANNERS or (path.suffix != ".json" and not path.is_file()):
        return find_law(name)
    if not path.is_file():
        raise ValueError(f"--law={name!r}: there is no such file.")
    try:
        text = path.read_text()
        law = from_json(text, _kind(text))
    except ValueError as refusal:
        raise ValueError(
            f"--law={name!r} holds no law: {refusal} `llama-jax scaling fit --out` writes one."
        ) from refusal
    if isinstance(law, FrontierLaw) and law.exponent >= 1:
        raise ValueError(
            f"--law={name!r}: its parameters grow with compute to the {law.exponent:.3g}, so that "
            "more compute would mean fewer tokens; its runs cannot tell the best size."
        )
    return law


def _kind(text: str) -> type[LossLaw] | type[FrontierLaw]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return LossLaw  # reading it says what is wrong
    return FrontierLaw if isinstance(data, dict) and "coefficient" in data else LossLaw
