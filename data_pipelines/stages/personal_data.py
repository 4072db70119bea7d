"""Replaces what identifies people: e-mail addresses, phone numbers, public IP addresses.

What counts is written for web text in which most digits are something else:

- **E-mail**: a name of at most 64 ASCII characters, `@`, a host with a top-level domain of letters.
  Hosts that nobody can own (example.com, .test; RFC 2606) and names of image files
  (`logo@2x.png`) do not count.
- **Phone**: North American numbers as people write them, area code and exchange between 200 and
  999, with separators; numbers of any country after a `+`, of 8 to 15 digits, or 11 to 13 where
  nothing separates them (`+2147483647` is no phone number). Other digits without separators are
  prices, dates and keys more often. Numbers for films (555-01..) do not count.
- **IP**: version 4 in four parts without leading zeros, and version 6, if the internet routes them;
  private, documentation and multicast ranges stay (IANA's special-purpose registries). Part of a
  longer number, after `v`, "version", "section" and the like, or after a name and a slash
  (`Chrome/41.0.227.0`), they are versions. So they are if no part is above 99: nearly all of those
  in real pages number sections of manuals, and of addresses drawn by lot 1 in 43 is like that.
"""

import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from llama_jax.config import PersonalData

from ..document import Document, Dropped
from .sites import host_of, read_sites

_NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
_MAX_NAME = 64
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9_])"
)
_NOBODYS = re.compile(
    r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost|localdomain|"
    r"png|jpe?g|gif|svg|webp|css|js)$",
    re.IGNORECASE,
)

_PHONE_END = re.compile(r"[2-9][0-9][0-9][-. ][0-9]{4}(?![\w-]|\.[0-9])")
_AREA = re.compile(r"(?<![\w.+/-])(?:\+?1[-. ]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-. ])$")
_AREA_CHARACTERS = 10
# Possessive: digits that no phone number can hold must not be tried in every split.
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]*+(?:[-. /(]{1,2}+[0-9]++\)?+){0,6}+")
_FILM = re.compile(r"555.01[0-9][0-9]$")

_IP4 = re.compile(r"[0-9][0-9]{0,2}(?:\.[0-9]{1,3}){3}")
_IP4_MARK = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IP6 = re.compile(r"[0-9a-fA-F:]{6,39}")
_IP6_MARK = re.compile(r"[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:")
_VERSION = re.compile(
    r"(?:\bv|\bv\.|\bver\.?|version|release|build|firmware|driver|revision|section|chapter|clause|"
    r"\brfc|§|[A-Za-z0-9]/)[\s:=]{0,2}$",
    re.IGNORECASE,
)
_BEFORE = 16
_MANY = 10_000

# https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-; multicast besides.
_NOT_PUBLIC_4 = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
    "224.0.0.0/3"
)
_NETWORKS_4 = tuple(map(ipaddress.IPv4Network, _NOT_PUBLIC_4.split()))
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class Find(NamedTuple):
    """Where in a text, and what: "email", "phone" or "ip"."""

    start: int
    end: int
    kind: str


def find_emails(text: str) -> Iterator[Find]:
    """E-mail addresses, from left to right; in linear time whatever the text."""
    at = text.find("@")
    while at >= 0:
        before = text[max(at - _MAX_NAME - 1, 0) : at]
        name = before[len(before.rstrip(_NAME_CHARACTERS)) :].lstrip(".%+-_")
        host = _HOST.match(text, at + 1) if 0 < len(name) <= _MAX_NAME else None
        if host and name[-1] != "." and not _NOBODYS.search(host.group()):
            yield Find(at - len(name), host.end(), "email")
        at = text.find("@", host.end() if host else at + 1)


def find_phones(text: str) -> Iterator[Find]:
    """Phone numbers, those after a `+` first."""
    at = text.find("+")
    while at >= 0:
        found = None if text[at - 1 : at].isalnum() else _INTERNATIONAL.match(text, at)
        if found and not text[found.end() : found.end() + 1].isalnum() and _is_phone(found.group()):
            yield Find(at, found.end(), "phone")
        at = text.find("+", found.end() if found else at + 1)
    for end in _PHONE_END.finditer(text):
        start = max(end.start() - _AREA_CHARACTERS, 0)
        area = _AREA.search(text[start : end.start()])
        if area is None or _FILM.search(end.group()):
            continue
        yield Find(start + area.start(), end.end(), "phone")


def _is_phone(text: str) -> bool:
    digits = sum(map(str.isdigit, text))
    return 11 <= digits <= 13 or (8 <= digits <= 15 and digits < len(text) - 1)


def find_addresses(text: str) -> Iterator[Find]:
    """Public IP addresses of both versions."""
    after = 0
    for mark in _IP4_MARK.finditer(text):
        if mark.start() < after:
            continue
        start = mark.start()
        while start > 0 and mark.start() - start < _BEFORE and text[start - 1] in "0123456789.":
            start -= 1
        found = _IP4.match(text, start)
        after = mark.end() if found is None else found.end()
        if found and _is_public_4(found.group()) and _stands_alone(text, start, after):
            yield Find(start, after, "ip")
    after = 0
    for mark in _IP6_MARK.finditer(text):
        before = text[mark.start() - 1 : mark.start()]
        if mark.start() < after or before.isalnum() or before == ":":
            continue
        found = _IP6.match(text, mark.start())
        if found is None:
            continue
        after = found.end()
        address = found.group().rstrip(":") if not found.group().endswith("::") else found.group()
        if _is_public_6(address) and not text[after : after + 1].isalnum():
            yield Find(mark.start(), mark.start() + len(address), "ip")


def _is_public_4(text: str) -> bool:
    parts = text.split(".")
    if any(len(part) > 1 and part[0] == "0" for part in parts):
        return False
    if not 99 < max(map(int, parts)) < 256:
        return False
    address = ipaddress.IPv4Address(text)
    return not any(address in network for network in _NETWORKS_4)


def _is_public_6(text: str) -> bool:
    # Shorter ones are slices of Python's more often than addresses.
    if sum(map(bool, text.split(":"))) < 3:
        return False
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether four numbers are an address and not part of something longer, or a version."""
    before, after = text[max(start - _BEFORE, 0) : start], text[end : end + 2]
    if before and (before[-1].isalnum() or before[-1] in "._-+"):
        return False
    if after and (
        after[0].isalnum() or after[0] in "_-+" or (after[0] == "." and after[1:].isdigit())
    ):
        return False
    return not _VERSION.search(before)


class PersonalDataStage:
    """Replaces finds in documents; drops those with many, and those of some sites.

    Raises:
        ValueError: If `sites_file` cannot be read.
    """

    def __init__(self, config: PersonalData):
        self._config = config
        self._sites = read_sites(config.sites_file) if config.sites_file else frozenset()
        kinds = {"email": find_emails, "phone": find_phones, "ip": find_addresses}
        self._placeholders = {kind: text for kind in kinds if (text := getattr(config, kind))}
        self._finders = [kinds[kind] for kind in self._placeholders]

    def find(self, text: str) -> list[Find]:
        """What would be replaced, from left to right, without overlaps.

        Of texts that are dropped for their finds not all are given: memory is bounded.
        """
        finds: list[Find] = []
        most = 2 * self._config.max_finds + _MANY
        found_first = (itertools.islice(finder(text), most) for finder in self._finders)
        for found in sorted(itertools.chain.from_iterable(found_first)):
            if not finds or found.start >= finds[-1].end:
                finds.append(found)
        return finds

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """See `DocumentFilter`; replacements are noted by kind."""
        for document in documents:
            if self._sites and (host := host_of(document.url)) in self._sites:
                dropped.add("personal data: site", document.id, document.text, value=host)
                continue
            finds = self.find(document.text)
            if len(finds) > self._config.max_finds:
                dropped.add(
                    "personal data: finds",
                    document.id,
                    document.text,
                    value=str(len(finds)),
                    allowed=f"at most {self._config.max_finds}",
                )
                continue
            for found in finds:
                dropped.note("personal data replaced", found.kind)
            yield document._replace(text=self._replace(document.text, finds))

    def fingerprint(self) -> str:
        """Changes with the list of sites."""
        return hashlib.sha256("\n".join(sorted(self._sites)).encode()).hexdigest()

    def _replace(self, text: str, finds: list[Find]) -> str:
        if not finds:
            return text
        parts, at = [], 0
        for found in finds:
            parts += text[at : found.start], self._placeholders[found.kind]
            at = found.end
        return "".join((*parts, text[at:]))
