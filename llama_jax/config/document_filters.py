"""Filters that look at what a document says: its language, and what must not be in it."""

import dataclasses
from typing import Literal

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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decontamination:
    """Keeps what a model will be evaluated on out of what it is trained on.

    Source: Brown et al. 2020 (arXiv:2005.14165), appendix C: 13-grams of words without punctuation
    and case; n-grams that many items share do not count there either (more than 10 documents).

    Attributes:
        paths: Evaluation files, or folders of them: .jsonl and .parquet, each record an item with
            every text in it; .txt, each line an item; .gz and .bz2 of .jsonl and .txt too.
        ngram: So many words in a row in common are contamination.
        min_words: A shorter text of an item counts if it occurs whole and has so many words.
        max_items: An n-gram that more items have is their template and does not count.
        action: "drop" leaves the whole document out; "remove" only the words in common.
        if_there: The paths are below `--input`, as those of sources are, and the filter is left
            out, and that said, where one is not there.
    """

    paths: tuple[str, ...]
    ngram: int = 13
    min_words: int = 8
    max_items: int = 10
    action: Literal["drop", "remove"] = "drop"
    if_there: bool = False

    def __post_init__(self) -> None:
        owner = "filters.decontamination"
        checks.positive(owner, min_words=self.min_words, max_items=self.max_items)
        checks.one_of(owner, ("drop", "remove"), action=self.action)
        if not self.paths:
            raise ValueError(f"{owner}.paths is empty; name evaluation files, or folders of them.")
        if self.ngram < self.min_words:
            raise ValueError(
                f"{owner}.ngram={self.ngram} must not be below {owner}.min_words={self.min_words}: "
                "texts of at least so many words would then be told by fewer."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QualityClassifier:
    """Keeps documents that resemble good ones, by a linear model of their words.

    Source: LLaMA-1 tells pages used as references in Wikipedia from random pages, Touvron et al.
    2023 (arXiv:2302.13971), section 2.1; GPT-3 keeps some of the others by a Pareto distribution,
    Brown et al. 2020 (arXiv:2005.14165), appendix A.

    Attributes:
        path: Model written by `llama-jax data classifier train`.
        keep: "above" keeps scores above `keep_above`; "pareto" keeps a document of score s if a
            number drawn from a Pareto distribution, by the hash of its text, is above 1 - s.
        keep_above: Score in [0, 1].
        pareto_alpha: Shape of the distribution; a lower one keeps more.
        if_there: As of `Decontamination`.
    """

    path: str
    keep: Literal["above", "pareto"] = "above"
    keep_above: float = 0.5
    pareto_alpha: float = 9.0
    if_there: bool = False

    def __post_init__(self) -> None:
        owner = "filters.quality_classifier"
        checks.one_of(owner, ("above", "pareto"), keep=self.keep)
        checks.fraction(owner, keep_above=self.keep_above)
        checks.positive(owner, pareto_alpha=self.pareto_alpha)
