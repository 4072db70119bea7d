"""What a word is made of, as rules count it."""

import functools
import unicodedata

import regex

# As in datatrove 0.10, the full-width digit one included.
_PUNCTUATION = frozenset(
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
) | {chr(code) for code in (*range(32), *range(127, 160))}
_SENTENCE_TERMINAL = regex.compile(r"\p{Sentence_Terminal}")

LETTERS = 1
SYMBOL = 2
SENTENCE_END = 4
BETWEEN = 8


@functools.lru_cache(4096)
def ends_sentence(character: str) -> bool:
    """Whether it is terminal punctuation of any script (Unicode's Sentence_Terminal)."""
    return _SENTENCE_TERMINAL.match(character) is not None


def kind_of(word: str) -> int:
    """What a word is: bits of the constants above.

    `LETTERS` has a letter; `SYMBOL` has nothing but punctuation; `SENTENCE_END` is one terminal
    mark; `BETWEEN` can stand between a sentence's end mark and the next sentence.
    """
    if word.isalpha():
        return LETTERS
    kind = LETTERS if any(map(str.isalpha, word)) else 0
    if all(character in _PUNCTUATION or ends_sentence(character) for character in word):
        kind |= SYMBOL
    if len(word) == 1 and ends_sentence(word):
        return kind | SENTENCE_END | BETWEEN
    if all(unicodedata.category(character).startswith("P") for character in word):
        kind |= BETWEEN
    return kind
