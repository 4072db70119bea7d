"""What documents pass on their way from a source to the shards, one after the other."""

from llama_jax.config.code import CodeRules
from llama_jax.config.document_filters import Decontamination, LanguageFilter, PersonalData
from llama_jax.config.rules import C4Rules, FineWebRules, GopherQuality, GopherRepetition

Filter = (
    GopherQuality
    | GopherRepetition
    | C4Rules
    | FineWebRules
    | LanguageFilter
    | PersonalData
    | CodeRules
)


def check_filters(owner: str, filters: tuple[Filter, ...]) -> None:
    """Raises ValueError if a kind of filter is given twice."""
    kinds = [type(given).__name__ for given in filters]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise ValueError(f"{owner}.filters has {', '.join(twice)} twice; give each kind once.")
