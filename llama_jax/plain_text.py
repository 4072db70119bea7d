"""Numbers and foreign text as people read them, on a page and in a terminal."""

import math
import re

# Characters that draw nothing, reorder their neighbours or steer a terminal: controls other than
# tab and line feed, Default_Ignorable_Code_Point, line separators, surrogates.
# Source: Unicode 16.0, DerivedCoreProperties.txt; Unicode Technical Report 36, section 3.
_UNSEEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000e0000-\U000e0fff"
)
# Joiners and variation selectors belong to Persian, Indian scripts and emoji: one alone stays.
_RUN = re.compile(rf"(?![\u200c\u200d\ufe0e\ufe0f](?![{_UNSEEN}]))([{_UNSEEN}])\1*")
_DECIMAL_UNITS = ("kB", "MB", "GB", "TB", "PB")
_WORDS = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"))


def visible(text: str) -> str:
    """The text with unseen characters named: "‹U+202E›", and "‹U+200B ×300›" for a run of one."""

    def name(run: re.Match[str]) -> str:
        times = f" ×{len(run[0])}" if len(run[0]) > 1 else ""
        return f"‹U+{ord(run[1]):04X}{times}›"

    return _RUN.sub(name, text.replace("\r\n", "\n"))


def byte_size(num_bytes: float) -> str:
    """Bytes in decimal units, three digits: "1.86 GB"."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    power = min(int(math.log10(num_bytes * 1.0005)) // 3, len(_DECIMAL_UNITS))
    return f"{_digits(num_bytes / 1000**power, 3)} {_DECIMAL_UNITS[power - 1]}"


def amount(number: float, digits: int = 3) -> str:
    """A number in full below a million, in words from there on: "1.25 million"."""
    for size, word in _WORDS:
        if number >= 0.9995 * size:
            return f"{_digits(number / size, digits)} {word}"
    return f"{number:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share that is 0% or 100% only where it is exactly that; a dash where there is no whole."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if not share:
        return "0%"
    if share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.1f}%" if share < 10 or 99 < share < 100 else f"{share:.0f}%"


def _digits(number: float, digits: int) -> str:
    before_point = 1 + (number >= 9.995) + (number >= 99.95)
    return f"{number:.{max(digits - before_point, 0)}f}"
