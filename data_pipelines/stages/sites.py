"""Which web sites have much personal data: counted in one pass, left out in the next.

What a site has in all no single document tells. So a first pass (`site_pass`) counts finds by host,
part by part, and adds them up; the hosts above a rate go to a file, which `PersonalData.sites_file`
names in the build.
"""

import collections
import urllib.parse
from collections.abc import Callable, Iterable, Sized
from pathlib import Path

from ..document import Document


def host_of(url: str) -> str:
    """The host of an address in lower case, without "www." and port; empty if it has none."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.")


def read_sites(path: str) -> frozenset[str]:
    """Hosts of a file, one a line.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"filters.personal_data.sites_file={path!r}: no list of host names can be read there "
            f"({type(error).__name__}); give a UTF-8 text file with one a line, or leave it out."
        ) from error
    return frozenset(line.strip().lower().removeprefix("www.") for line in lines) - {""}


class SiteCounts:
    """Documents and finds of each host; memory grows with the number of hosts."""

    def __init__(self) -> None:
        self.documents: collections.Counter[str] = collections.Counter()
        self.finds: collections.Counter[str] = collections.Counter()

    def add(self, documents: Iterable[Document], find: Callable[[str], Sized]) -> None:
        """Counts documents that have an address, and what is found in their texts."""
        for document in documents:
            if host := host_of(document.url):
                self.documents[host] += 1
                self.finds[host] += len(find(document.text))

    def update(self, other: "SiteCounts") -> None:
        """Adds what was counted elsewhere."""
        self.documents.update(other.documents)
        self.finds.update(other.finds)

    def to_json(self) -> dict[str, dict[str, int]]:
        """As JSON that `from_json` reads."""
        return {"documents": dict(self.documents), "finds": dict(self.finds)}

    @classmethod
    def from_json(cls, data: dict[str, dict[str, int]]) -> "SiteCounts":
        """Reads what `to_json` gives."""
        counts = cls()
        counts.documents.update(data["documents"])
        counts.finds.update(data["finds"])
        return counts

    def above(self, finds_per_document: float, *, min_documents: int = 10) -> list[str]:
        """Hosts with more finds a document, in alphabetical order.

        Args:
            finds_per_document: The highest mean that stays.
            min_documents: Hosts with fewer stay whatever they have: one contact page is no rate.
        """
        return sorted(
            host
            for host, count in self.documents.items()
            if count >= min_documents and self.finds[host] > finds_per_document * count
        )
