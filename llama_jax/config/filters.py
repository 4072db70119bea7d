"""What documents pass on their way from a source to the shards, one after the other."""

from collections.abc import Sequence

from llama_jax.config.code import CodeRules
from llama_jax.config.document_filters import (
    Decontamination,
    LanguageFilter,
    PersonalData,
    QualityClassifier,
)
from llama_jax.config.rules import C4Rules, FineWebRules, GopherQuality, GopherRepetition

Filter = (
    GopherQuality
    | GopherRepetition
    | C4Rules
    | FineWebRules
    | LanguageFilter
    | PersonalData
    | Decontamination
    | QualityClassifier
    | CodeRules
)


def check_kinds(field: str, values: Sequence[object]) -> None:
    """Raises ValueError if a field has two values of one class."""
    kinds = [type(given).__name__ for given in values]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise ValueError(f"{field} has {', '.join(twice)} twice; give each kind once.")
