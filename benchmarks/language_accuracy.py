"""How often the language of a web page is told right, by pages that declare theirs.

Command: python benchmarks/language_accuracy.py [--archives FOLDER]

A page declares its language by `<html lang>`, or else by its address ("/de/", "index.ja.html").
Left out are pages of fewer than 200 characters of text, those that declare another language than
English and are full of English function words (they were never translated), and those that are
not in a script of the language declared. Beside ours: the detector without our look at the script.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tyro
from samples.texts import CORPORA

from data_pipelines.document import Dropped
from data_pipelines.sources import common_crawl
from data_pipelines.sources.html_blocks import TooManyTagsError
from data_pipelines.sources.html_text import html_to_text
from data_pipelines.sources.warc import warc_records
from data_pipelines.stages.language import _LANGUAGES_OF, Resiliparse
from data_pipelines.stages.scripts import main_script

_IN_HTML = re.compile(r"<html\b[^>]*?\blang\s*=\s*[\"']?([a-z]{2})\b", re.I)
_IN_ADDRESS = re.compile(r"(?:/|[.])([a-z]{2})(?:[-_][A-Za-z]{2})?(?:/|[.]html?$)")
# fmt: off
_ENGLISH = {
    "the", "of", "and", "to", "in", "is", "that", "for", "with", "be", "are", "this", "on", "not",
}
# fmt: on
_MOST_ENGLISH = 0.15
_LEAST_CHARACTERS = 200
_LEAST_SCORE = 0.5
_WIDTH = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is read."""

    archives: Path = CORPORA / "commoncrawl" / "built"
    """A folder of archives; those ending in .warc.gz are read."""


class Page(NamedTuple):
    """A page that counts, what it declares, and what was told."""

    declared: str
    told: str
    score: float
    without_script: str


def main(options: Options) -> None:
    """Prints shares of right answers, and the languages in which fewer were right."""
    detector = Resiliparse()
    known = frozenset(detector.languages())
    pages = list(_pages(sorted(options.archives.glob("*.warc.gz")), detector, known))
    if not pages:
        print(f"skipped: no .warc.gz in {options.archives}; give a folder with --archives")
        return
    right = [page for page in pages if page.told == page.declared]
    wrong = [page for page in pages if page.told != page.declared]
    alone = sum(page.without_script == page.declared for page in pages)
    languages = len({page.declared for page in pages})
    print(f"{len(pages)} pages in {languages} languages: {len(right) / len(pages):.1%} right")
    print(f"without the look at the script: {alone / len(pages):.1%}")
    print(f"mean score: {sum(page.score for page in pages) / len(pages):.3f}")
    for name, some in (("right", right), ("wrong", wrong)):
        below = sum(page.score < _LEAST_SCORE for page in some) / max(len(some), 1)
        print(f"of {len(some)} {name} answers a score of {_LEAST_SCORE} drops {below:.1%}")
    _print_english(pages)
    _print_weak(pages)


def _pages(archives: list[Path], detector: Resiliparse, known: frozenset[str]) -> Iterator[Page]:
    from resiliparse.parse.lang import detect_fast

    for path in archives:
        with path.open("rb") as file:
            for record in warc_records(file, path.name, Dropped()):
                try:
                    html = common_crawl.page_html(record)
                    text = html_to_text(html)
                except (common_crawl._RefusedError, TooManyTagsError):
                    continue
                declared = _declared(html, record.url)
                if declared in known and _counts(text, declared):
                    told = detector.detect(text)
                    yield Page(declared, told.language, told.score, detect_fast(text)[0])


def _declared(html: str, url: str) -> str:
    found = _IN_HTML.search(html[:20_000]) or _IN_ADDRESS.search(url)
    return found[1].lower() if found else ""


def _counts(text: str, declared: str) -> bool:
    if len(text) < _LEAST_CHARACTERS:
        return False
    words = text.lower().split()
    english = sum(word in _ENGLISH for word in words) / len(words)
    if declared != "en" and english > _MOST_ENGLISH:
        return False
    script = main_script(text)
    scripts = {name for name, among in _LANGUAGES_OF.items() if declared in among.split()}
    return script in scripts if scripts else script == "Latin"


def _print_english(pages: list[Page]) -> None:
    kept = [page for page in pages if page.told == "en" and page.score >= _LEAST_SCORE]
    english = [page for page in pages if page.declared == "en"]
    both = sum(page.declared == "en" for page in kept)
    print(
        f"English: {both / max(len(kept), 1):.1%} of the pages kept are, "
        f"{both / max(len(english), 1):.1%} of those that are, are kept"
    )


def _print_weak(pages: list[Page]) -> None:
    by_language = collections.defaultdict(list)
    for page in pages:
        by_language[page.declared].append(page.told)
    for language, told in sorted(by_language.items()):
        if told.count(language) < len(told):
            others = collections.Counter(each for each in told if each != language)
            taken = ", ".join(f"{name or 'none'} {n}" for name, n in others.most_common(_WIDTH))
            print(f"  {language}: {told.count(language)} of {len(told)}; else {taken}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
