"""Filters that look at what a document says: its language, and what must not be in it."""

import dataclasses

from llama_jax.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageFilter:
    """Which language is a document in? Labels each, and keeps those of some languages.

    Source: the threshold is CCNet's, Wenzek et al. 2020 (arXiv:1911.00359), section 3.3.

    Attributes:
        languages: ISO 639-1 codes of languages kept, such as "en"; none keeps every document.
        min_score: A document whose best language has a lower score counts as of no language. The
            score is the detector's own confidence, in [0, 1]; see `docs/data.md`.
        model: A fastText model for language identification (needs the package `fasttext`); without
            one the detector of `resiliparse` is used.
    """

    languages: tuple[str, ...] = ("en",)
    min_score: float = 0.5
    model: str = ""

    def __post_init__(self) -> None:
        checks.fraction("filters.language", min_score=self.min_score)
