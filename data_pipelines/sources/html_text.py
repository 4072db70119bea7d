"""HTML pages to plain text: all of it, or what the page is about."""

import html
import re
from collections.abc import Iterator
from itertools import accumulate

from .html_blocks import Block, Element, Page
from .html_names import BODY, CELLS, CONTENT, HEADINGS, ITEMS

# A block of so many characters is prose; with less, a label, a button or a byline may be.
_PROSE_CHARS = 50
_LINK_SHARE = 0.5
# A block of links speaks no louder against the text around it than one of so many characters.
_LINK_CHARS = 100
# Elements with less than this are looked at again with what is hidden.
_FEW_CHARS = 250
_NO_ROOT = frozenset(["p", "tr", *ITEMS])
_HUGE_REFERENCE = re.compile(r"&#[xX]?[\da-fA-F]{8,};?")
_SENTENCE_END = frozenset(".!?…:;。！？»”\"'’)]")
_SHORT_CHARS = 200
_NOISE = re.compile(
    r"(?i)^\W*(?:https?://\S+|advert(?:isement)?s?|sponsored(?: content)?|share(?: this.*)?|caption"
    r"|close|(?:image|photo|credit|picture|source|file)s?:.*|\(?(?:image|photo|picture)s?"
    r"(?: credit)?:.*|\d+ (?:comments?|shares?))\W*$"
    r"|\bnewsletters?\b|\b(?:sign|log) ?(?:up|in)\b|\bsubscri|\bfollow (?:us|me|him|her|them)\b|©"
    r"|\ball rights reserved\b|\bclick here\b"
)


def html_to_text(page: str, *, main_content: bool = True) -> str:
    """Text of a page, a line for each block; table cells are separated by tabs.

    The main content is the smallest element with nearly all of the page's prose, where prose is
    blocks that are long and no links; an element whose names say that it holds the article may
    have a little less. In it, elements whose names say boilerplate are left out as long as most of
    the prose is not in them, and so are blocks that are links, headings of the first order (the
    title), and short lines that ask to subscribe, name a photographer and the like. Where that
    gives next to nothing, what is hidden and what has suspicious names is taken too.

    Sources: text and link density of blocks, Kohlschuetter et al. 2010, "Boilerplate Detection
    using Shallow Text Features"; of elements by their names, Mozilla's Readability.

    Args:
        page: HTML.
        main_content: Whether menus, advertisements, comments and so on are left out.

    Raises:
        TooManyTagsError: If it is no page that anybody wrote.
    """
    if not main_content:
        blocks = Page(page, is_main=False, with_hidden=True).blocks
        return _unescape("\n".join(_lines(blocks)))
    text = _main_text(page, is_strict=True)
    if len(text) < _FEW_CHARS:
        lenient = _main_text(page, is_strict=False)
        if len(lenient) > 2 * len(text):
            text = lenient
    return _unescape(text)


def _main_text(source: str, *, is_strict: bool) -> str:
    page = Page(source, is_main=True, with_hidden=not is_strict)
    sizes = [_text_size(block) for block in page.blocks]
    if is_strict:
        _leave_boilerplate_out(page, sizes)
    values = map(_value, page.blocks, sizes)
    root = _main_element(page, list(accumulate(values, initial=0.0)))
    return "\n".join(_lines(_trimmed(list(_kept(page.blocks[root.start : root.end])))))


def _text_size(block: Block) -> float:
    """Characters that are no link; of scripts that say more with each, in bytes by the measure."""
    chars = block.chars
    if not block.text.isascii():
        chars = max(chars, len(block.text.encode("utf-8", "replace")) * 2 / 3)
    return chars * (1 - min(block.link_chars / block.chars, 1))


def _leave_boilerplate_out(page: Page, sizes: list[float]) -> None:
    prose = list(
        accumulate(
            (
                size if size >= _PROSE_CHARS and not _is_linked(block) else 0
                for block, size in zip(page.blocks, sizes, strict=True)
            ),
            initial=0.0,
        )
    )
    for element in page.elements[1:]:
        assert element.parent is not None
        is_most = prose[element.end] - prose[element.start] > prose[-1] / 2
        is_suspicious = element.verdict < 0 and not is_most
        element.is_left_out = element.parent.is_left_out or is_suspicious


def _is_linked(block: Block) -> bool:
    return block.link_chars > _LINK_SHARE * block.chars


def _value(block: Block, size: float) -> float:
    """How much the block speaks for an element that it is in."""
    tag = block.element.tag
    if block.element.is_left_out:
        return -0.25 * min(block.chars, _LINK_CHARS)
    if _is_linked(block):
        return -0.3 * min(block.chars, _LINK_CHARS)
    if size >= _PROSE_CHARS and tag not in HEADINGS:
        return size / 2 if tag == "li" else size
    return 0.3 * size if tag in ITEMS or tag == "pre" else -5


def _main_element(page: Page, values: list[float]) -> Element:
    """The innermost element that is worth nearly as much as any; `values` are sums over blocks."""
    worth = [
        (values[element.end] - values[element.start], element)
        for element in page.elements
        if not element.is_left_out and element.tag not in _NO_ROOT
    ]
    most = max(value for value, _ in worth)
    best = page.elements[0]
    for value, element in worth:
        is_inside = best.start <= element.start and element.end <= best.end
        if is_inside and 0 < most <= value * _trust(element):
            best = element
    return best


def _trust(element: Element) -> float:
    if element.verdict == BODY:
        return 1.5
    return 1.2 if element.verdict == CONTENT or element.tag in ("article", "main") else 1.0


def _kept(blocks: list[Block]) -> Iterator[Block]:
    """Blocks of the main element that are text; a heading only with what it is of."""
    headings = list[Block]()
    for block in blocks:
        element = block.element
        if element.is_left_out or element.tag == "h1":
            continue
        if block.chars < _SHORT_CHARS and _NOISE.search(block.text):
            continue
        if _is_linked(block) and not _is_text_of_links(block):
            headings.clear()
        elif element.tag in HEADINGS:
            headings.append(block)
        else:
            yield from headings
            headings.clear()
            yield block


def _is_text_of_links(block: Block) -> bool:
    """Whether a block that is all links belongs to the text nevertheless."""
    element = block.element
    if element.tag in ITEMS and element.parent is not None:
        listed = element.parent
        if listed.link_chars < _LINK_SHARE * listed.chars:
            return True
    return element.tag in ("li", "p") and block.chars >= 70 and block.text[-1] in _SENTENCE_END


def _trimmed(blocks: list[Block]) -> list[Block]:
    """Without the short lines in front of the first sentence and behind the last, if any is."""
    first, last = 0, len(blocks)
    while first < last and blocks[first].chars < _PROSE_CHARS and _is_label(blocks[first]):
        first += 1
    while first < last and blocks[last - 1].chars < 40 and _is_label(blocks[last - 1]):
        last -= 1
    return blocks[first:last] or blocks


def _is_label(block: Block) -> bool:
    tag = block.element.tag
    return tag not in ITEMS and tag != "pre" and block.text[-1] not in _SENTENCE_END


def _lines(blocks: list[Block]) -> Iterator[str]:
    row, cells = None, []
    for block in blocks:
        element = block.element
        if cells and (element.tag not in CELLS or element.parent is not row):
            yield "\t".join(cells)
            cells = []
        if element.tag in CELLS:
            row = element.parent
            cells.append(block.text)
        else:
            yield f"- {block.text}" if element.tag == "li" else block.text
    if cells:
        yield "\t".join(cells)


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    # Python refuses numbers of thousands of digits.
    return html.unescape(_HUGE_REFERENCE.sub("\ufffd", text)).replace("\xa0", " ")
