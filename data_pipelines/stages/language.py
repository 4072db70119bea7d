"""Identifies the language of documents and keeps those of some.

The detector is resiliparse's: it compares letters, pairs and triples of them with a profile of each
language and gives distances. Those are not probabilities, and their size depends on the length of
a text, so that a fixed limit on them drops nothing. A score here is made of the distances to the
nearest languages: `exp(-d/10)` of the best over the sum for the best five. 10 is the width at which
the mean score came nearest to the share of right answers on 1,300 web pages of known language.

The profiles fail on texts in which a script with many characters stands beside Latin letters
(Japanese manuals with English names). So the script is counted first: it decides where one language
uses it, and otherwise leaves the languages that do, Latin letters put aside.
"""

import difflib
import importlib.metadata
import importlib.util
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from llama_jax.checksum import file_sha256
from llama_jax.config import LanguageFilter

from ..document import Document, Dropped
from .scripts import main_script

_MAX_CHARACTERS = 1 << 20
_NEAREST = 5
_WIDTH = 10.0
_ANY_DISTANCE = 1 << 30
_ASCII_LETTERS = re.compile("[A-Za-z]+")

_LANGUAGES_OF = {
    "Greek": "el",
    "Cyrillic": "ba be bg ce cv kk ky mk mn ru sr tg tt uk",
    "Armenian": "hy",
    "Hebrew": "he yi",
    "Arabic": "ar fa ku ps sd ug ur",
    "Thaana": "dv",
    "Devanagari": "hi mr ne sa",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Tibetan": "bo",
    "Myanmar": "my",
    "Georgian": "ka",
    "Khmer": "km",
    "Hangul": "ko",
    "Kana": "ja",
    "Han": "zh",
    "other": "",
}


class Guess(NamedTuple):
    """A language and how sure it is.

    Attributes:
        language: ISO 639-1 code; empty where there is nothing to go by.
        score: In [0, 1].
    """

    language: str
    score: float


class Detector(Protocol):
    """Says which language a text is in."""

    def languages(self) -> list[str]:
        """Codes that it can give."""
        ...

    def detect(self, text: str) -> Guess:
        """The most likely language of a text."""
        ...

    def fingerprint(self) -> str:
        """Changes where answers may."""
        ...


class Resiliparse:
    """Distances to profiles of 101 languages, after a look at the script."""

    def languages(self) -> list[str]:
        """See `Detector`."""
        from resiliparse.parse.lang import supported_langs

        return sorted(supported_langs())

    def detect(self, text: str) -> Guess:
        """See `Detector`; at most the first 1,048,576 characters count."""
        from resiliparse.parse.lang import detect_fast

        text = text[:_MAX_CHARACTERS]
        script = main_script(text)
        among = None
        if script != "Latin":
            among = _LANGUAGES_OF[script].split()
            if len(among) < 2:
                return Guess(among[0], 1.0) if among else Guess("", 0.0)
            text = _ASCII_LETTERS.sub("", text)
        elif not any(map(str.isalpha, text)):
            return Guess("", 0.0)
        nearest = cast(
            list[tuple[str, int]],
            detect_fast(text, cutoff=_ANY_DISTANCE, n_results=_NEAREST, langs=among),
        )
        language, best = nearest[0]
        return Guess(language, 1 / sum(math.exp((best - far) / _WIDTH) for _, far in nearest))

    def fingerprint(self) -> str:
        """See `Detector`."""
        return f"resiliparse {importlib.metadata.version('resiliparse')}"


class FastText:
    """A model such as lid.176.bin; its score is the model's own probability.

    Raises:
        ValueError: If there is no such file, no package to read it, or no labels of languages.
    """

    def __init__(self, path: str):
        where = f"filters.language.model={path!r}"
        if not Path(path).is_file():
            raise ValueError(f"{where}: there is no such file; give a fastText model (.bin, .ftz).")
        if importlib.util.find_spec("fasttext") is None:
            raise ValueError(
                f"{where} needs the package fasttext, which is not installed: `pip install "
                "fasttext`, or leave the model out to use resiliparse's detector."
            )
        import fasttext  # pyright: ignore[reportMissingImports]

        self._path = Path(path)
        try:
            self._model = fasttext.load_model(path)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{where} is no fastText model: {error}.") from error

    def languages(self) -> list[str]:
        """See `Detector`."""
        return sorted(label.removeprefix("__label__") for label in self._model.get_labels())

    def detect(self, text: str) -> Guess:
        """See `Detector`."""
        line = text[:_MAX_CHARACTERS].replace("\n", " ")
        # Not `predict`: as of fastText 0.9.3 it fails with NumPy 2.
        answers = self._model.f.predict(line, 1, 0.0, "strict")
        if not answers:
            return Guess("", 0.0)
        ((score, label),) = answers
        return Guess(label.removeprefix("__label__"), min(score, 1.0))

    def fingerprint(self) -> str:
        """See `Detector`."""
        return file_sha256(self._path)


class LanguageStage:
    """Labels documents with their language; drops those of other languages or of none.

    Raises:
        ValueError: If the detector does not know a language that is wanted.
    """

    def __init__(self, config: LanguageFilter):
        self._config = config
        self._detector: Detector = FastText(config.model) if config.model else Resiliparse()
        known = self._detector.languages()
        for language in config.languages:
            if language not in known:
                close = difflib.get_close_matches(language, known, n=3, cutoff=0.3)
                raise ValueError(
                    f"filters.language.languages={language!r}: the detector knows no such language."
                    f" Did you mean {' or '.join(close) or 'one of ' + ', '.join(known)}?"
                )

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """See `DocumentFilter`; a language with too low a score is not written down."""
        wanted = self._config.languages
        for document in documents:
            language, score = self._detector.detect(document.text)
            value = f"{language or 'none'}, {score:.2f}"
            sure = bool(language) and score >= self._config.min_score
            dropped.note("language", language if sure else "none")
            if wanted and not sure:
                dropped.add("language: not sure", document.id, document.text, value=value)
            elif wanted and language not in wanted:
                dropped.add("language: another", document.id, document.text, value=value)
            else:
                yield document._replace(language=language if sure else "")

    def fingerprint(self) -> str:
        """Changes where the same text may get another language."""
        return self._detector.fingerprint()
