"""Many chunks split into words at once, as `words.split_chunk` splits each.

Where a chunk is cut does not depend on which letters and digits it has, but for exceptions,
addresses and units. So runs of letters and of digits are made alike: "(Hello," and "(World," have
one shape. A shape is split once, and every chunk that has it is cut at the same places. A chunk of
which a part is an exception is split by itself, and so is one whose letters may matter otherwise.
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import regex

from .words import EXCEPTIONS, split_chunk

# They stand for runs; no exception, unit or currency has them.
_LOWER, _UPPER, _OTHER, _DIGIT = _RUNS = "ñÑא7"
_RUN_SET = frozenset(_RUNS)
_LETTERS = _LOWER + _UPPER + _OTHER
# Units after numbers, currencies, degrees; numbers in addresses.
_BY_ITSELF = regex.compile(
    rf"{_DIGIT}[{_LETTERS}]|{_UPPER}\$|°|\..*:{_DIGIT}|(?:{_DIGIT}+\.){{3}}{_DIGIT}"
)
_LONGEST = 60
_LETTER, _RUN, _S, _APOSTROPHE = 1, 2, 4, 8
_END = "\n"


class _Plan(NamedTuple):
    """How chunks of a shape are split, in places of the shape.

    Attributes:
        by_itself: Each of them by itself.
        starts: Where words begin.
        suspects: Where parts begin and end that are exceptions with some letters, in pairs.
    """

    by_itself: bool
    starts: tuple[int, ...]
    suspects: tuple[int, ...]


_NO_PLAN = _Plan(True, (0,), ())


class Split(NamedTuple):
    """Which chunks, their words end to end, and the number of words of each."""

    which: list[int]
    words: list[str]
    num_words: list[int]


class Splitter:
    """Splits chunks, and remembers how those of a shape are split."""

    def __init__(self) -> None:
        self._plans = {"": _NO_PLAN}
        # Most shapes that are met once are never met again.
        self._met_once: set[str] = set()

    def split(self, chunks: list[str]) -> Iterator[Split]:
        """Splits chunks without white space; they come in another order."""
        by_itself = np.array([len(chunk) > _LONGEST or chunk in EXCEPTIONS for chunk in chunks])
        short = [
            "" if alone else chunk for chunk, alone in zip(chunks, by_itself.tolist(), strict=True)
        ]
        text = _END.join([*short, ""])
        shapes, places = _shapes(text)
        self._make_plans(shapes)
        plans = [self._plans.get(shape, _NO_PLAN) for shape in shapes]
        firsts = np.cumsum([0, *(len(shape) + 1 for shape in shapes[:-1])])

        starts, num_words = _expand((plan.starts for plan in plans), firsts, places)
        ends = np.append(starts[1:], len(text))
        ends[np.cumsum(num_words) - 1] -= len(_END)

        by_itself |= [plan.by_itself for plan in plans]
        parts, num_parts = _expand((plan.suspects for plan in plans), firsts, places)
        pairs = zip(parts[::2].tolist(), parts[1::2].tolist(), strict=True)
        found = [text[start:end] in EXCEPTIONS for start, end in pairs]
        by_itself[np.repeat(np.arange(len(plans)), num_parts // 2)[found]] = True

        cut = np.repeat(~by_itself, num_words)
        words = zip(starts[cut].tolist(), ends[cut].tolist(), strict=True)
        yield Split(
            np.flatnonzero(~by_itself).tolist(),
            [text[start:end] for start, end in words],
            num_words[~by_itself].tolist(),
        )
        rest = np.flatnonzero(by_itself).tolist()
        split = [split_chunk(chunks[at]) for at in rest]
        yield Split(rest, list(itertools.chain.from_iterable(split)), list(map(len, split)))

    def _make_plans(self, shapes: list[str]) -> None:
        new = collections.Counter(shape for shape in shapes if shape not in self._plans)
        for shape, count in new.items():
            if count > 1 or shape in self._met_once:
                self._plans[shape] = _plan(shape)
            else:
                self._met_once.add(shape)


def _expand(
    lists: Iterable[tuple[int, ...]], firsts: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places in the text of places in shapes, and how many of each shape."""
    lists = list(lists)
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    flat = np.fromiter(itertools.chain.from_iterable(lists), np.int64, int(counts.sum()))
    return places[flat + np.repeat(firsts, counts)], counts


def _shapes(text: str) -> tuple[list[str], np.ndarray]:
    """Shapes of the chunks that end with `_END`, and where in the text their characters stand.

    Of a run its first two characters stay: there are some or there is one. The s of "dog's" is a
    letter of its own kind.
    """
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    signs, flags = _tables()
    beyond = characters >= len(signs)
    low = np.where(beyond, 0, characters)
    flags, kinds = flags[low], np.where(beyond, characters, signs[low])
    is_s = (flags[1:-1] & _S > 0) & (flags[:-2] & _APOSTROPHE > 0) & (flags[2:] & _LETTER == 0)
    at = np.flatnonzero(is_s) + 1
    kinds[at] = characters[at]
    goes_on = (kinds[1:] == kinds[:-1]) & (flags[1:] & _RUN > 0)
    stays = np.ones(len(kinds), bool)
    stays[2:] = ~(goes_on[1:] & goes_on[:-1])
    places = np.flatnonzero(stays)
    shapes = kinds[places].tobytes().decode("utf-32-le", "surrogatepass")
    return shapes.split(_END)[:-1], places


def _codes(characters: Iterable[str]) -> np.ndarray:
    return np.array(list(map(ord, characters)), np.uint32)


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each character of the Basic Multilingual Plane its sign in shapes, and its flags."""
    signs, flags = np.arange(1 << 16, dtype=np.uint32), np.zeros(1 << 16, np.uint8)
    letters = "".join(chr(code) for code in range(1 << 16) if chr(code).isalpha())
    for name, sign in (("Ll", _LOWER), ("Lu", _UPPER), ("Lo", _OTHER)):
        signs[_codes(regex.findall(rf"\p{{{name}}}", letters))] = ord(sign)
    signs[_codes("0123456789")] = ord(_DIGIT)
    flags[np.isin(signs, _codes(_RUNS))] |= _RUN
    flags[np.isin(signs, _codes(_LETTERS))] |= _LETTER
    flags[_codes("sS")] |= _S
    flags[_codes("'’")] |= _APOSTROPHE
    return signs, flags


@functools.cache
def _exceptions() -> tuple[frozenset[str], int]:
    """Shapes of exceptions, and the characters of the longest one."""
    shapes, _ = _shapes(_END.join([*EXCEPTIONS, ""]))
    found = frozenset(map(_plain, shapes))
    return found, max(map(len, found))


def _plain(shape: str) -> str:
    return shape.translate(str.maketrans("sS", _LOWER + _UPPER))


def _plan(shape: str) -> _Plan:
    if _BY_ITSELF.search(shape):
        return _NO_PLAN
    words = split_chunk(shape)
    starts = itertools.accumulate(map(len, words[:-1]), initial=0)
    exceptions, longest = _exceptions()
    plain = _plain(shape)
    edges = [
        at
        for at, (a, b) in enumerate(zip(" " + plain, plain + " ", strict=True))
        if a != b or a not in _RUNS
    ]
    suspects: list[int] = []
    for index, start in enumerate(edges):
        for end in edges[index + 1 : index + 1 + longest]:
            # Whole chunks are looked up anyway, and what has no run is the same in each of them.
            part = shape[start:end]
            if plain[start:end] in exceptions and part != shape and not _RUN_SET.isdisjoint(part):
                suspects += (start, end)
    return _Plan(False, tuple(starts), tuple(suspects))
