"""Which script a text is written in."""

import numpy as np

# First and last character of the blocks of each script; what is in none is no letter here.
_BLOCKS = {
    "Latin": "41-5A 61-7A AA-AA BA-BA C0-D6 D8-F6 F8-24F 1E00-1EFF",
    "Greek": "370-3FF 1F00-1FFF",
    "Cyrillic": "400-52F 1C80-1C8F 2DE0-2DFF A640-A69F",
    "Armenian": "530-58F",
    "Hebrew": "590-5FF FB1D-FB4F",
    "Arabic": "600-6FF 750-77F 8A0-8FF FB50-FDFF FE70-FEFF",
    "Thaana": "780-7BF",
    "Devanagari": "900-97F",
    "Bengali": "980-9FF",
    "Gurmukhi": "A00-A7F",
    "Gujarati": "A80-AFF",
    "Oriya": "B00-B7F",
    "Tamil": "B80-BFF",
    "Telugu": "C00-C7F",
    "Kannada": "C80-CFF",
    "Malayalam": "D00-D7F",
    "Sinhala": "D80-DFF",
    "Thai": "E00-E7F",
    "Tibetan": "F00-FFF",
    "Myanmar": "1000-109F",
    "Georgian": "10A0-10FF",
    "Khmer": "1780-17FF",
    "Hangul": "1100-11FF 3130-318F AC00-D7AF",
    "Kana": "3040-30FF 31F0-31FF FF66-FF9F",
    "Han": "3400-4DBF 4E00-9FFF F900-FAFF",
    # Lao, Ethiopic, Cherokee, Canadian syllabics, Mongolian.
    "other": "E80-EFF 1200-167F 1800-18AF",
}
_NAMES = ("", *_BLOCKS)
# A character of these says as much as two or three letters.
_WEIGHTS = np.array([{"": 0, "Han": 3, "Kana": 2, "Hangul": 2}.get(name, 1) for name in _NAMES])
_LATIN, _KANA, _HAN = map(_NAMES.index, ("Latin", "Kana", "Han"))
_MIN_SHARE = 0.4
_MIN_KANA = 0.1


def _table() -> np.ndarray:
    table = np.zeros(1 << 16, np.uint8)
    for number, blocks in enumerate(_BLOCKS.values(), 1):
        for block in blocks.split():
            first, last = (int(end, 16) for end in block.split("-"))
            table[first : last + 1] = number
    return table


_SCRIPT_OF = _table()


def main_script(text: str) -> str:
    """The script of a text, by Unicode's English name.

    Scripts other than Latin win from two fifths of the letters on: names, addresses and code are in
    Latin letters whatever the language. "Kana" is Japanese, Chinese characters included; "Han" has
    no kana; "other" is a script that is not listed here; a text without letters counts as Latin.
    """
    if text.isascii():
        return "Latin"
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    letters = np.bincount(_SCRIPT_OF[units], minlength=len(_NAMES)) * _WEIGHTS
    total, letters[_LATIN] = letters.sum(), 0
    foreign = letters.sum()
    if not foreign or foreign < _MIN_SHARE * total:
        return "Latin"
    if (best := int(np.argmax(letters))) in (_KANA, _HAN):
        best = _KANA if letters[_KANA] > _MIN_KANA * foreign else _HAN
    return _NAMES[best]
