"""Texts cut at white space, all at once.

The cuts are those of `str.split`, and lines those of `str.splitlines`, found in the UTF-8 bytes of
many texts by NumPy. Arrow then tells equal chunks apart, so that Python sees each one once.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

_BREAK = "\x1e"
_DASH = ord("-")
_BULLET, _ELLIPSIS, _DOTS = (np.frombuffer(mark.encode(), np.uint8) for mark in ("•", "…", "..."))


class Chunks(NamedTuple):
    """The parts of texts between white space, end to end.

    Attributes:
        numbers: Of each chunk, its place among the different ones.
        different: Each different chunk once, in UTF-8.
        of_lines: How many each line has.
        lines: How many lines each text has.
        bullets: Lines of each text whose first chunk begins with a bullet.
        ellipses: Lines of each text whose last chunk ends with an ellipsis.
    """

    numbers: np.ndarray
    different: list[bytes]
    of_lines: np.ndarray
    lines: np.ndarray
    bullets: np.ndarray
    ellipses: np.ndarray


def find_chunks(texts: Sequence[str]) -> Chunks:
    """Chunks and lines of texts; together they must have less than 2 GiB of UTF-8."""
    is_space, is_break = _tables()
    parts = [_plain(text).encode("utf-8", "surrogatepass") for text in texts]
    bytes_ = np.frombuffer(b"".join(parts), np.uint8)
    space = is_space[bytes_]
    edges = np.flatnonzero(np.diff(space, prepend=True, append=True))
    starts, ends = edges[::2], edges[1::2]

    is_end = is_break[bytes_]
    is_end[1:] &= (bytes_[1:] != ord("\n")) | (bytes_[:-1] != ord("\r"))
    line_ends = np.flatnonzero(is_end)
    text_ends = np.cumsum([len(part) for part in parts])
    last = np.searchsorted(starts, line_ends)
    of_lines = np.diff(last, prepend=0)
    lines_before = np.searchsorted(line_ends, text_ends)

    full = of_lines > 0
    bullets = np.zeros(len(full), bool)
    ellipses = np.zeros(len(full), bool)
    bullets[full] = _begins(bytes_, starts[(last - of_lines)[full]])
    ellipses[full] = _ends(bytes_, ends[last[full] - 1])
    numbers, different = _encode(bytes_[~space], ends - starts)
    lines = np.diff(lines_before, prepend=0)

    def in_texts(of_lines: np.ndarray) -> np.ndarray:
        return np.diff(np.append(0, np.cumsum(of_lines))[lines_before], prepend=0)

    return Chunks(numbers, different, of_lines, lines, in_texts(bullets), in_texts(ellipses))


def _plain(text: str) -> str:
    """The same lines and chunks, with ASCII between them and a line break at the end."""
    if not text.isascii() and (odd := _odd()).search(text):
        text = odd.sub(lambda found: _BREAK if _ends_line(found.group()) else " ", text)
    if text.endswith("\r"):
        # It must not become one with a line feed that begins the next text.
        return text[:-1] + _BREAK
    return text if not text or _ends_line(text[-1]) else text + "\n"


def _begins(bytes_: np.ndarray, at: np.ndarray) -> np.ndarray:
    return _stand_at(bytes_, at, _BULLET) | (bytes_[at] == _DASH)


def _ends(bytes_: np.ndarray, end: np.ndarray) -> np.ndarray:
    return _stand_at(bytes_, end - 3, _ELLIPSIS) | _stand_at(bytes_, end - 3, _DOTS)


def _stand_at(bytes_: np.ndarray, at: np.ndarray, mark: np.ndarray) -> np.ndarray:
    # What lies beyond an end is seen at the other; a line break, of which there is one between,
    # is in no mark.
    return np.all([bytes_.take(at + k, mode="wrap") == byte for k, byte in enumerate(mark)], axis=0)


def _encode(bytes_: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(bytes_))]
    found = pa.Array.from_buffers(pa.binary(), len(lengths), buffers).dictionary_encode()
    return found.indices.to_numpy(), found.dictionary.to_pylist()


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Which bytes are white space, and which of those end a line."""
    spaces = np.array([code < 128 and chr(code).isspace() for code in range(256)])
    return spaces, np.array([bool(s) and _ends_line(chr(code)) for code, s in enumerate(spaces)])


@functools.cache
def _odd() -> re.Pattern[str]:
    """White space beyond ASCII."""
    return re.compile("[" + "".join(filter(str.isspace, map(chr, range(128, 1 << 16)))) + "]")


def _ends_line(character: str) -> bool:
    return len((character + "x").splitlines()) == 2
