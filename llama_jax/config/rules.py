"""Rules that drop documents by their text; defaults are the published thresholds.

A threshold that nothing passes or breaks turns its rule off: 1.0 for a largest share, 0 for a
smallest one.
"""

import dataclasses

from llama_jax.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GopherQuality:
    """Does the text read like prose? Words without letters or digits do not count as words.

    Source: Rae et al. 2021 (arXiv:2112.11446), section A1.1; details as in datatrove 0.10.

    Attributes:
        min_words: Fewest words that are more than punctuation.
        max_words: Most of them.
        min_mean_word_length: Of those words, characters.
        max_mean_word_length: Of those words, characters.
        max_hashes_per_word: `#` for each word.
        max_ellipses_per_word: `...` or `…` for each word.
        max_bullet_lines: Share of lines that start with `•` or `-`.
        max_ellipsis_lines: Share of lines that end with `...` or `…`.
        min_alphabetic_words: Share of words, punctuation included, with a letter.
        min_stop_words: How many of `stop_words` must occur.
        stop_words: Words found in almost all prose of the language, in lower case.
    """

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_hashes_per_word: float = 0.1
    max_ellipses_per_word: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def __post_init__(self) -> None:
        owner = "rules.gopher_quality"
        _not_negative(owner, self)
        checks.fraction(
            owner,
            max_bullet_lines=self.max_bullet_lines,
            max_ellipsis_lines=self.max_ellipsis_lines,
            min_alphabetic_words=self.min_alphabetic_words,
        )
        _ordered(owner, self, "words")
        _ordered(owner, self, "mean_word_length")
        if self.min_stop_words > len(set(self.stop_words)):
            raise ValueError(
                f"{owner}.min_stop_words={self.min_stop_words} must not be above the "
                f"{len(set(self.stop_words))} stop words given: every document would be dropped."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GopherRepetition:
    """Does the text repeat itself?

    Source: Rae et al. 2021 (arXiv:2112.11446), table A1; details as in datatrove 0.10.

    Attributes:
        max_duplicate_lines: Share of lines that repeat an earlier one.
        max_duplicate_paragraphs: Share of paragraphs that do.
        max_duplicate_line_characters: Share of characters in lines that do.
        max_duplicate_paragraph_characters: Share of characters in paragraphs that do.
        max_top_ngram_characters: Share of characters in the most frequent n-gram of words, for
            n = 2, 3 and 4.
        max_duplicate_ngram_characters: Share of characters in n-grams of words that repeat an
            earlier one, for n = 5 to 10.
    """

    max_duplicate_lines: float = 0.30
    max_duplicate_paragraphs: float = 0.30
    max_duplicate_line_characters: float = 0.20
    max_duplicate_paragraph_characters: float = 0.20
    max_top_ngram_characters: tuple[float, float, float] = (0.20, 0.18, 0.16)
    max_duplicate_ngram_characters: tuple[float, float, float, float, float, float] = (
        0.15,
        0.14,
        0.13,
        0.12,
        0.11,
        0.10,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                checks.fraction("rules.gopher_repetition", **{field.name: number})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class C4Rules:
    """Removes lines that are no sentences, then drops documents of which too little is left.

    Its lines are removed before any rule looks at the text, wherever it stands in `rules`.

    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.2, without the list of bad words;
    details as in datatrove 0.10.

    Attributes:
        needs_terminal_punctuation: Remove lines that do not end in `.`, `?`, `!` or a quote, or
            that end in `...`. FineWeb turns this off.
        min_words_per_line: Remove lines of fewer words, between spaces.
        max_word_length: Remove lines with a longer word, in characters.
        remove_citations: Remove `[1]`, `[edit]` and `[citation needed]` from lines.
        remove_javascript: Remove lines that mention it.
        remove_policies: Remove lines about cookies, privacy and terms of use.
        drop_curly_brackets: Drop documents with `{` in a line that is not removed before.
        drop_lorem_ipsum: Drop documents with that phrase, likewise.
        min_sentences: Drop documents with fewer in the lines that are left.
    """

    needs_terminal_punctuation: bool = True
    min_words_per_line: int = 3
    max_word_length: int = 1000
    remove_citations: bool = True
    remove_javascript: bool = True
    remove_policies: bool = True
    drop_curly_brackets: bool = True
    drop_lorem_ipsum: bool = True
    min_sentences: int = 5

    def __post_init__(self) -> None:
        _not_negative("rules.c4", self)
        checks.positive("rules.c4", max_word_length=self.max_word_length)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FineWebRules:
    """Is the text more than a list?

    Source: Penedo et al. 2024 (arXiv:2406.17557), section 3.6; details as in datatrove 0.10.

    Attributes:
        min_punctuated_lines: Share of lines that end in terminal punctuation of any script.
        max_short_lines: Share of lines of at most `short_line_length` characters.
        short_line_length: Characters.
        max_duplicate_line_characters: Share of characters in lines that repeat an earlier one.
        max_newlines_per_word: Line breaks for each word.
    """

    min_punctuated_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line_length: int = 30
    max_duplicate_line_characters: float = 0.01
    max_newlines_per_word: float = 0.3

    def __post_init__(self) -> None:
        owner = "rules.fineweb"
        _not_negative(owner, self)
        checks.fraction(
            owner,
            min_punctuated_lines=self.min_punctuated_lines,
            max_short_lines=self.max_short_lines,
            max_duplicate_line_characters=self.max_duplicate_line_characters,
        )


Rule = GopherQuality | GopherRepetition | C4Rules | FineWebRules


def _not_negative(owner: str, rule: Rule) -> None:
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, int | float):
            checks.not_negative(owner, **{field.name: value})


def _ordered(owner: str, rule: Rule, name: str) -> None:
    low, high = getattr(rule, f"min_{name}"), getattr(rule, f"max_{name}")
    if low > high:
        raise ValueError(
            f"{owner}.min_{name}={low} must not be above {owner}.max_{name}={high}: every document "
            "would be dropped."
        )
