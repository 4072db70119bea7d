"""Addresses that articles of Wikipedia refer to, so that web pages at them can be told.

Every address in an article's wikitext counts: those of references and templates, and those under
"External links". Two addresses are the same if they differ in scheme, "www.", the case of the host,
how letters are escaped, a slash at the end, or the part after "#". Of a page kept at the Internet
Archive the address there and the page's own count. Addresses are compared as 64-bit numbers.
"""

import array
import hashlib
import re
import urllib.parse
from collections.abc import Iterator

import numpy as np

from llama_jax.config import WikipediaSource

from ..document import Dropped
from ..sources import open_source
from ..sources.wikipedia import articles

_ADDRESS = re.compile(r"""https?://[^\s\[\]<>{}|"^`\\]+""", re.I)
_ARCHIVED = re.compile(r"https?://web\.archive\.org/web/\w+/(https?://.+)", re.I)
_TRAILING = ".,:;!?'"
_PLAIN_IN_PATHS = "/:@!$&'()*+,;=~"
_PORTS = {"http": 80, "https": 443}
_AT_ONCE = 1 << 22
_LONGEST = 4096


class References:
    """The addresses that articles refer to.

    Args:
        numbers: Of the addresses, in order.
    """

    def __init__(self, numbers: np.ndarray):
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, address: str) -> bool:
        if (number := _number(address)) is None:
            return False
        at = int(np.searchsorted(self._numbers, np.uint64(number)))
        return at < len(self._numbers) and int(self._numbers[at]) == number


def read_references(source: WikipediaSource, dropped: Dropped) -> References:
    """All addresses in the articles of the dumps; 8 bytes of memory each.

    Raises:
        ValueError: If there is no dump.
    """
    known, new = np.zeros(0, np.uint64), array.array("Q")
    for file in open_source(source).files():
        for article in articles(file, dropped):
            found = map(_number, addresses(article.wikitext))
            new.extend(number for number in found if number is not None)
            if len(new) >= _AT_ONCE:
                known, new = _merged(known, new), array.array("Q")
    return References(_merged(known, new))


def addresses(wikitext: str) -> Iterator[str]:
    """Addresses in the source of a page, in order."""
    for found in _ADDRESS.finditer(wikitext):
        address = found[0].replace("&amp;", "&").rstrip(_TRAILING)
        if address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(_TRAILING)
        yield address
        if archived := _ARCHIVED.fullmatch(address):
            yield archived[1]


def canonical(address: str) -> str:
    """What all forms of an address have in common; empty for what is none."""
    try:
        parts = urllib.parse.urlsplit(address[:_LONGEST])
        host, port = (parts.hostname or "").removeprefix("www."), parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    if port not in (None, _PORTS.get(parts.scheme)):
        host = f"{host}:{port}"
    path = urllib.parse.quote(urllib.parse.unquote_to_bytes(parts.path), safe=_PLAIN_IN_PATHS)
    return f"{host}{path.rstrip('/')}" + f"?{parts.query}" * bool(parts.query)


def _number(address: str) -> int | None:
    if not (form := canonical(address)):
        return None
    return int.from_bytes(hashlib.blake2b(form.encode(errors="replace"), digest_size=8).digest())


def _merged(known: np.ndarray, new: "array.array[int]") -> np.ndarray:
    return np.union1d(known, np.array(new, np.uint64))
