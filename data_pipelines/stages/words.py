"""Text into words, as spaCy's English tokenizer splits it, at several times its speed.

A text is cut at white space (`chunks`), and a chunk is split as spaCy splits it: exceptions
(contractions, abbreviations, times, emoticons) as listed, else punctuation off both ends one by
one, then an address kept whole, else cuts at hyphens and other marks between letters. Here is what
one chunk becomes; `shapes` does the same for many at once.

Where it differs: letters, upper and lower case and symbols are Unicode's classes, not spaCy's
lists of ranges; chunks of more than 1,000 characters, in which spaCy's search takes quadratic time,
are split into runs of letters and digits and single other characters.

Source: spaCy 3.8's documentation of its tokenizer, https://spacy.io/usage/linguistic-features.
"""

import string

import regex

_MAX_CHUNK = 1000
_LONGEST_SUFFIX = 7

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
# Marks that are cut off one by one whatever stands beside them.
_CUT_BEFORE = frozenset("§%=—–" + _PUNCT + _QUOTES + _CURRENCY) - {"…"}
_CUT_AFTER = frozenset("—–" + _PUNCT + _QUOTES) - {"…"}
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


EXCEPTIONS = _exceptions()
# spaCy finds these in the middle of a chunk as well, because its own cuts would take them apart.
_MERGED = {
    text
    for text, parts in EXCEPTIONS.items()
    if len(parts) == 1 and (_PREFIX.match(text) or _SUFFIX.search(text) or _INFIX.search(text))
}
_BEGINNINGS = {text[:end] for text in _MERGED for end in range(1, len(text))}


def split_chunk(chunk: str) -> list[str]:
    """The words of a chunk without white space, in order; together they are the chunk."""
    if (known := EXCEPTIONS.get(chunk)) is not None:
        return known
    if chunk.isalpha():
        return [chunk]
    # By far the most common of the rest: a word and one mark.
    word, mark = chunk[:-1], chunk[-1]
    if word.isalpha() and (mark in ',;:!?)]"' or (mark == "." and word[-1].islower())):
        return [*EXCEPTIONS.get(word, (word,)), mark]
    if len(chunk) > _MAX_CHUNK:
        return _LONG.findall(chunk) or [chunk]
    before, middle, after = _strip_ends(chunk)
    if middle in EXCEPTIONS:
        words = [*before, *EXCEPTIONS[middle], *after]
    elif not middle or ("." in middle and _ADDRESS.fullmatch(middle)):
        words = [*before, middle, *after] if middle else before + after
    else:
        words = [*before, *_cut(middle), *after]
    return _merge(words) if not _BEGINNINGS.isdisjoint(words) else words


def _strip_ends(text: str) -> tuple[list[str], str, list[str]]:
    """Marks before, what is between, marks after; each step takes one off both ends."""
    before: list[str] = []
    after: list[str] = []
    while text and text not in EXCEPTIONS:
        start = _prefix_end(text)
        if start and text[start:] in EXCEPTIONS:
            before.append(text[:start])
            text = text[start:]
            break
        end = _suffix_start(text, start)
        if end < len(text) and text[:end] in EXCEPTIONS:
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
    if (first := text[0]) in _CUT_BEFORE:
        return 1
    if first.isalnum() and "$" not in text[:3]:
        return 0
    found = _PREFIX.match(text)
    return found.end() if found else 0


def _suffix_start(text: str, start: int) -> int:
    if (last := text[-1]) in _CUT_AFTER:
        return max(start, len(text) - 1)
    if "0" <= last <= "9" or (tail := text[-_LONGEST_SUFFIX:]).isalpha():
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
        end, reach, joined = at + 1, at + 1, words[at]
        while joined in _BEGINNINGS and reach < len(words):
            joined += words[reach]
            reach += 1
            if joined in _MERGED:
                end = reach
        merged.append(words[at] if end == at + 1 else "".join(words[at:end]))
        at = end
    return merged
