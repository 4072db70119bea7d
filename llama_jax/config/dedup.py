"""How texts that repeat one another are found."""

import dataclasses

from llama_jax.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MinHash:
    """Near duplicates of documents, by signatures and bands.

    Two documents whose n-grams of words have Jaccard similarity `s` are compared with probability
    1 - (1 - s^rows)^bands, and are near duplicates if their signatures agree in at least a share
    `threshold` of all bands * rows minima. Of each group one stays: the longest, and of those as
    long the first by digest.

    Source: 14 bands of 8 rows over 5-grams as in FineWeb, Penedo et al. 2024 (arXiv:2406.17557),
    section 3.4, which has no threshold.

    Attributes:
        ngram: Words of an n-gram.
        bands: Documents are compared if they agree in all rows of one of these.
        rows: Minima of a band.
        threshold: Smallest share of equal minima; 0 takes all that are compared.
        seed: Of the pseudo-random orders.
    """

    ngram: int = 5
    bands: int = 14
    rows: int = 8
    threshold: float = 0.7
    seed: int = 1

    def __post_init__(self) -> None:
        checks.positive("near_duplicates", ngram=self.ngram, bands=self.bands, rows=self.rows)
        checks.fraction("near_duplicates", threshold=self.threshold)
        checks.not_negative("near_duplicates", seed=self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParagraphDedup:
    """Paragraphs, which are lines of text, of which only the first occurrence stays.

    Source: Wenzek et al. 2019 (arXiv:1911.00359), section 3.1.

    Attributes:
        min_characters: Documents of which fewer are left, after lines were removed, are dropped.
    """

    min_characters: int = 300

    def __post_init__(self) -> None:
        checks.not_negative("paragraphs", min_characters=self.min_characters)


Deduplication = MinHash | ParagraphDedup
