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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PersonalData:
    """Replaces e-mail addresses, phone numbers and public IP addresses by placeholders.

    Source: the kinds, the placeholders and the limit of 5 are Dolma's, Soldaini et al. 2024
    (arXiv:2402.00159), section 3.1; leaving out sites with much personal data is LLaMA-2's,
    Touvron et al. 2023 (arXiv:2307.09288), section 4.1.

    Attributes:
        max_finds: A document with more of them is dropped.
        email: Stands in the place of an e-mail address; empty leaves those alone, uncounted.
        phone: In the place of a phone number, likewise.
        ip: In the place of an IP address, likewise.
        sites_file: A file of host names, one a line; documents whose address is there are dropped.
            `data_pipelines.stages.sites` makes one.
    """

    max_finds: int = 5
    email: str = "|||EMAIL_ADDRESS|||"
    phone: str = "|||PHONE_NUMBER|||"
    ip: str = "|||IP_ADDRESS|||"
    sites_file: str = ""

    def __post_init__(self) -> None:
        checks.not_negative("filters.personal_data", max_finds=self.max_finds)
        if not (self.email or self.phone or self.ip or self.sites_file):
            raise ValueError(
                "filters.personal_data.email, .phone and .ip are all empty: nothing would be "
                "looked for; give one a placeholder, or leave the filter out."
            )
