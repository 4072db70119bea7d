"""Text into words, as spaCy's English tokenizer splits it, at several times its speed.

A text is cut at white space; each distinct chunk is split once and then looked up, since a few
thousand chunks make up most of any text. A chunk is split as spaCy splits it: exceptions
(contractions, abbreviations, times, emoticons) as listed, else punctuation off both ends one by
one, then an address kept whole, else cuts at hyphens and other marks between letters.

Where it differs: letters, upper and lower case and symbols are Unicode's classes, not spaCy's
lists of ranges; chunks of more than 1,000 characters, in which spaCy's search takes quadratic time,
are split into runs of letters and digits and single other characters.

Source: spaCy 3.8's documentation of its tokenizer, https://spacy.io/usage/linguistic-features.
"""

import array
import string
from typing import NamedTuple

import numpy as np
import regex

from .marks import kind_of

_MAX_CHUNK = 1000
_LONGEST_SUFFIX = 7
_MAX_CHUNKS = 1 << 19
_MAX_CHARACTERS = 16 << 20

_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_PUNCT = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_CURRENCY = "$£€¥฿₽﷼₴" + "".join(map(chr, range(0x20A0, 0x20C0)))
_UNITS = (
    "km³ km² km m³ m² m/s m dm³ dm² dm cm³ cm² cm mm³ mm² mm ha µm nm yd in ft kg g mg µg t lb oz "
    "km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км³ км² км м³ м² м/с м дм³ дм² дм "
    "см³ см² см мм³ мм² мм нм кг г мг км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб"
)


def _one_of(characters: str) -> str:
    return "[" + regex.escape(characters, special_only=False) + r"\p{So}]"


_LOWER, _UPPER, _LETTER = r"\p{Ll}\p{Lo}", r"\p{Lu}\p{Lo}", r"\p{L}"
_ESCAPED_QUOTES = regex.escape(_QUOTES, special_only=False)
_PREFIX = regex.compile(
    rf"……|\.\.+|(?:US|C|A)\$|\+(?![0-9])|{_one_of('§%=—–' + _PUNCT + _QUOTES + _CURRENCY)}"
)
_SUFFIX = regex.compile(
    rf"(?:……|\.\.+|['’][sS]|{_one_of('—–' + _PUNCT + _QUOTES)}|(?<=[0-9])\+|(?<=°[FfCcKk])\."
    rf"|(?<=[0-9])(?:(?:US|C|A)\$|[{regex.escape(_CURRENCY)}]|{'|'.join(_UNITS.split())})"
    rf"|(?<=[0-9{_LOWER}%²\-+{regex.escape(_PUNCT, special_only=False)}{_ESCAPED_QUOTES}])\."
    rf"|(?<=[{_UPPER}][{_UPPER}])\.)$"
)
_INFIX = regex.compile(
    rf"\.\.+|…|\p{{So}}|(?<=[0-9])[+\-*^](?=[0-9-])"
    rf"|(?<=[{_LOWER}{_ESCAPED_QUOTES}])\.(?=[{_UPPER}{_ESCAPED_QUOTES}])"
    rf"|(?<={_LETTER}),(?={_LETTER})|(?<=[{_LETTER}0-9])(?:-{{1,3}}|–|—{{1,2}}|~)(?={_LETTER})"
    rf"|(?<=[{_LETTER}0-9])[:<>=/](?={_LETTER})"
)
_HOST = "A-Za-z0-9\u00a1-\uffff"
_ADDRESS = regex.compile(
    r"(?:[\w+\-.]{2,}://)?(?:\S+@)?"
    r"(?:(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){3}"
    rf"|(?:(?:[{_HOST}][{_HOST}_-]{{0,62}})?[{_HOST}]\.)+[{_LOWER}]{{2,63}})"
    r"(?::\d{2,5})?(?:[/?#]\S*)?"
)
_LONG = regex.compile(r"\w+|[^\w\s]")


_JOINED = (
    "y' all|y all|how 'd 'y|How 'd 'y|can not|Can not|gon na|Gon na|got ta|Got ta|let 's|Let 's|"
    "c'm on|C'm on"
)
_WHOLE = (
    "' '' — 'S 's ‘S ‘s 'd 'll 're 'em 'nuff 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout "
    "and/or w/o ma'am Ma'am o'clock O'clock C++ <space> "
    "lovin' Lovin' havin' Havin' doin' Doin' goin' Goin' nothin' Nothin' nuthin' Nuthin' "
    "ol' Ol' somethin' Somethin' ä. ö. ü. "
    "Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. "
    "Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. "
    "N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. "
    "a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. "
    "Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. "
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) "
    ";-) (; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| "
    "]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x "
    ":D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V "
    "v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 "
    "(^_^) (-_-) (._.) (>_<) (*_*) (¬_¬)"
)


def _contractions() -> dict[str, list[str]]:
    """Words with what is joined to them, with and without the apostrophe."""
    not_ = {"n't", "n't 've"}
    endings = {
        "i": {"'m", "'m a", "'ll", "'ll 've", "'d", "'d 've", "'ve"},
        "you we they": {"'ll", "'ll 've", "'d", "'d 've", "'ve", "'re"},
        "he she it": {"'ll", "'ll 've", "'d", "'d 've", "'s"},
        "who what when where why how there": {
            *("'s", "'ll", "'ll 've", "'re", "'ve", "'d", "'d 've"),
        },
        "that this": {"'s", "'ll", "'ll 've", "'d", "'d 've"},
        "these those": {"'ll", "'ll 've", "'re", "'ve", "'d", "'d 've"},
        "ca do does did had may need ought sha wo": not_,
        "could might must should would": not_ | {"'ve"},
        "ai are is was were have has dare": {"n't"},
        "not": {"'ve"},
    }
    ordinary = {"ill", "its", "hell", "shell", "shed", "were", "well", "whore"}
    found = {}
    for words, tails in endings.items():
        for word in words.split():
            for start in (word, word.title()):
                for tail in tails:
                    joined = [start, *tail.split()]
                    for parts in (joined, [part.replace("'", "") for part in joined]):
                        if "".join(parts).lower() not in ordinary:
                            found["".join(parts)] = parts
    return found


def _exceptions() -> dict[str, list[str]]:
    found: dict[str, list[str]] = _contractions()
    for parts in _JOINED.split("|"):
        found[parts.replace(" ", "")] = list(parts.split())
    for hour in range(1, 13):
        for half in ("am", "pm", "a.m.", "p.m."):
            found[f"{hour}{half}"] = [str(hour), half]
    for whole in (*_WHOLE.split(), *(f"{letter}." for letter in string.ascii_lowercase)):
        found[whole] = [whole]
    for text, parts in list(found.items()):
        if "'" in text:
            found[text.replace("'", "’")] = [part.replace("'", "’") for part in parts]
    return found


_EXCEPTIONS = _exceptions()
# spaCy finds these in the middle of a chunk as well, because its own cuts would take them apart.
_MERGED = {
    text
    for text, parts in _EXCEPTIONS.items()
    if len(parts) == 1 and (_PREFIX.match(text) or _SUFFIX.search(text) or _INFIX.search(text))
}
_BEGINNINGS = {text[:end] for text in _MERGED for end in range(1, len(text))}


def split_chunk(chunk: str) -> list[str]:
    """The words of a chunk without white space, in order; together they are the chunk."""
    if (known := _EXCEPTIONS.get(chunk)) is not None:
        return known
    if chunk.isalpha():
        return [chunk]
    # By far the most common of the rest: a word and one mark.
    word, mark = chunk[:-1], chunk[-1]
    if word.isalpha() and (mark in ',;:!?)]"' or (mark == "." and word[-1].islower())):
        return [*_EXCEPTIONS.get(word, (word,)), mark]
    if len(chunk) > _MAX_CHUNK:
        return _LONG.findall(chunk) or [chunk]
    before, middle, after = _strip_ends(chunk)
    if middle in _EXCEPTIONS:
        words = [*before, *_EXCEPTIONS[middle], *after]
    elif not middle or ("." in middle and _ADDRESS.fullmatch(middle)):
        words = [*before, middle, *after] if middle else before + after
    else:
        words = [*before, *_cut(middle), *after]
    return _merge(words) if not _BEGINNINGS.isdisjoint(words) else words


def _strip_ends(text: str) -> tuple[list[str], str, list[str]]:
    """Marks before, what is between, marks after; each step takes one off both ends."""
    before: list[str] = []
    after: list[str] = []
    while text and text not in _EXCEPTIONS:
        start = _prefix_end(text)
        if start and text[start:] in _EXCEPTIONS:
            before.append(text[:start])
            text = text[start:]
            break
        end = _suffix_start(text, start)
        if end < len(text) and text[:end] in _EXCEPTIONS:
            after.append(text[end:])
            text = text[:end]
            break
        if start:
            before.append(text[:start])
        if end < len(text):
            after.append(text[end:])
        elif not start:
            break
        text = text[start:end]
    return before, text, after[::-1]


def _prefix_end(text: str) -> int:
    if text[0].isalnum() and "$" not in text[:3]:
        return 0
    found = _PREFIX.match(text)
    return found.end() if found else 0


def _suffix_start(text: str, start: int) -> int:
    tail = text[-_LONGEST_SUFFIX:]
    if tail.isalpha() or "0" <= tail[-1] <= "9":
        return len(text)
    if tail.endswith(".."):
        return max(start, len(text.rstrip(".")))
    # Only the end is searched: a search from the start, at each step, takes quadratic time.
    found = _SUFFIX.search(text, max(start, len(text) - _LONGEST_SUFFIX))
    return found.start() if found else len(text)


def _cut(text: str) -> list[str]:
    words, at = [], 0
    for mark in _INFIX.finditer(text):
        if mark.start() == 0:
            continue
        if mark.start() > at:
            words.append(text[at : mark.start()])
        words.append(mark.group())
        at = mark.end()
    if at < len(text):
        words.append(text[at:])
    return words


def _merge(words: list[str]) -> list[str]:
    merged, at = [], 0
    while at < len(words):
        reach = min(at + 5, len(words)) if words[at] in _BEGINNINGS else at + 1
        for end in range(reach, at, -1):
            if end == at + 1 or "".join(words[at:end]) in _MERGED:
                merged.append("".join(words[at:end]))
                at = end
                break
    return merged


class Words(NamedTuple):
    """Words of some chunks, end to end, as numbers below the size of the vocabulary.

    Attributes:
        ids: The same number for the same word, until the vocabulary is emptied.
        num_words: Words of each chunk.
    """

    ids: np.ndarray
    num_words: np.ndarray


class Vocabulary(dict[str, int]):
    """Chunks seen so far and their words; a lookup splits a chunk that is new."""

    def __init__(self) -> None:
        super().__init__()
        self._ids: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self.clear()
        self._ids.clear()
        self._characters = 0
        self._words, self._starts = array.array("q"), array.array("q", [0])
        self._lengths, self._kinds = array.array("q"), array.array("q")

    def __missing__(self, chunk: str) -> int:
        for word in split_chunk(chunk):
            if (number := self._ids.get(word)) is None:
                number = self._ids[word] = len(self._ids)
                self._lengths.append(len(word))
                self._kinds.append(kind_of(word))
            self._words.append(number)
        self._starts.append(len(self._words))
        self._characters += len(chunk)
        chunk_number = self[chunk] = len(self)
        return chunk_number

    def make_room(self) -> None:
        """Forgets everything once it is much; numbers given before mean nothing after."""
        if len(self) > _MAX_CHUNKS or self._characters > _MAX_CHARACTERS:
            self._clear()

    def number(self, word: str) -> int | None:
        """The number of a word, if it was seen."""
        return self._ids.get(word)

    def lengths(self) -> np.ndarray:
        """Characters of each word."""
        return np.array(self._lengths, np.int64)

    def kinds(self) -> np.ndarray:
        """Kind of each word; see `marks.kind_of`."""
        return np.array(self._kinds, np.int64)

    def words(self, chunks: list[str]) -> Words:
        """Splits chunks, the parts of a text between white space."""
        numbers = np.fromiter(map(self.__getitem__, chunks), np.int64, len(chunks))
        starts = np.array(self._starts, np.int64)
        counts = np.diff(starts)[numbers]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        at = np.arange(total) + np.repeat(starts[numbers] - (ends - counts), counts)
        return Words(np.array(self._words, np.int64)[at], counts)
