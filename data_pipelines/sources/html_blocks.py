"""HTML to blocks of text and the elements around them, in one pass over the tags."""

import re

from .html_names import (
    ASIDES,
    BODY,
    ENDS_ITEM,
    ENDS_PARAGRAPH,
    FORMATTING,
    HIDDEN,
    KNOWN,
    OPAQUE,
    verdict,
)

MAX_TAGS = 250_000
_MAX_BLOCKS_OF_LINK = 20
_FORMAT_TAGS = frozenset([*FORMATTING.split("|"), "a", "br"])
_TOKEN = re.compile(r"<(?:(/?)([a-zA-Z][\w:-]*)|[!?])([^>]*)>")
_OPAQUE = re.compile(rf"<(?:!--|(?i:({OPAQUE})(?=[\s>/])))")
_ENDS = {name: re.compile(f"(?i)</{name}") for name in OPAQUE.split("|")}
_FORMAT = re.compile(rf"</?(?:{FORMATTING})(?:\s[^>]*)?/?>")
# What stays of links and line breaks: characters that no page needs.
_LINK, _LINK_END, _BREAK = "\1", "\2", "\0"
_LINK_TAG = re.compile(r"<[aA](?:\s[^>]*)?>")
_CUT_TAG = re.compile(r"<[a-zA-Z/!?]")
_BREAK_TAG = re.compile(r"<(?:br|BR)(?:\s[^>]*)?/?>")
_NO_MARKS = str.maketrans(dict.fromkeys(_LINK + _LINK_END + _BREAK, ""))


class Element:
    """A part of a page: its tag, what its names say, and which blocks are in it.

    Attributes:
        start: Number of its first block.
        end: Number behind its last.
        chars: Of the blocks in it.
        link_chars: Those of them that are links.
        is_left_out: For who chooses among the blocks.
    """

    __slots__ = ("chars", "end", "is_left_out", "link_chars", "parent", "start", "tag", "verdict")

    def __init__(self, tag: str, parent: "Element | None", hint: int, start: int):
        self.tag, self.parent, self.verdict = tag, parent, hint
        self.start = self.end = start
        self.chars = self.link_chars = 0
        self.is_left_out = False


class Block:
    """Text that stands together, in the innermost element that is not only formatting."""

    __slots__ = ("chars", "element", "link_chars", "text")

    def __init__(self, element: Element, text: str, link_chars: int):
        self.element, self.text, self.link_chars = element, text, link_chars
        self.chars = len(text)


class TooManyTagsError(Exception):
    """A page of more tags than anybody wrote."""


class Page:
    """Blocks and elements of a page, in order; entities are still in the text.

    Time and memory are proportional to the length, however it is nested: nothing calls itself, and
    no tag is searched for twice.

    Args:
        source: The page.
        is_main: Whether navigation, buttons, captions and the like are passed over.
        with_hidden: Whether what is not to be seen is taken too.

    Raises:
        TooManyTagsError: If there are more than `MAX_TAGS`.
    """

    def __init__(self, source: str, *, is_main: bool, with_hidden: bool):
        self._skipped = ASIDES if is_main else frozenset()
        self._skips_hidden = not with_hidden
        self._skips = True
        self._in_link, self._link_depth, self._blocks_of_link = False, 0, 0
        root = Element("body", None, 0, 0)
        self.blocks: list[Block] = []
        self.elements = [root]
        self._stack = [root]
        self._open: dict[str, int] = {}
        markup = _without_opaque(source)
        if markup.count("<") > 3 * MAX_TAGS:
            raise TooManyTagsError
        self._pieces = _split(_without_formatting(markup))
        if len(self._pieces) > 4 * MAX_TAGS:
            raise TooManyTagsError
        self._read()

    def _read(self) -> None:
        pieces, at = self._pieces, 1
        line = [pieces[0]]
        while at < len(pieces):
            slash, tag, attributes, text = pieces[at : at + 4]
            at += 4
            if tag not in KNOWN:
                tag = tag.lower() if tag else ""
                if not tag or tag in _FORMAT_TAGS:
                    line.append(_BREAK + text if tag == "br" else text)
                    continue
            if attributes and attributes.count('"') & 1:
                text, at = self._behind_quote(text, at)
            self._add_block(line)
            line = [text]
            if slash:
                if self._open.get(tag):
                    self._close(self._depth_of(tag))
                continue
            hint = verdict(attributes) if attributes else 0
            if self._is_skipped(tag, hint) and (end := self._end_of(tag, at)):
                line, at = [pieces[end + 3]], end + 4
                continue
            self._start(tag, hint)
        self._add_block(line)
        self._close(1)
        self.elements[0].end = len(self.blocks)

    def _behind_quote(self, text: str, at: int) -> tuple[str, int]:
        """What follows a tag with a ">" in an attribute, which came as text and tags."""
        for end in range(at - 4, min(len(self._pieces) - 3, at + 80), 4):
            if end >= at and (self._pieces[end + 2] or "").count('"') & 1:
                return self._pieces[end + 3], end + 4
            if self._pieces[end + 3].count('"') & 1:
                return self._pieces[end + 3].rpartition('"')[2].partition(">")[2], end + 4
        return text, at

    def _is_skipped(self, tag: str, hint: int) -> bool:
        # Elements whose end tags may be left out have no end that could be looked for.
        if tag in ENDS_ITEM or tag == "p":
            return False
        return (hint == HIDDEN and self._skips_hidden) or (tag in self._skipped and hint < BODY)

    def _end_of(self, tag: str, at: int) -> int:
        """Where the element ends that began before `at`; 0 if it does not."""
        depth, pieces = 1, self._pieces
        while self._skips and at < len(pieces):
            name = pieces[at + 1]
            if name and name.lower() == tag:
                if pieces[at]:
                    depth -= 1
                    if not depth:
                        return at
                elif not pieces[at + 2].endswith("/"):
                    depth += 1
            at += 4
        # Such a page is broken; looking again and again would take forever.
        self._skips = False
        return 0

    def _start(self, tag: str, hint: int) -> None:
        stack, keep = self._stack, len(self._stack)
        if tag in ENDS_PARAGRAPH:
            if self._open.get("p"):
                for depth in range(keep - 1, max(0, keep - 6), -1):
                    if stack[depth].tag == "p":
                        keep = depth
                        break
        elif tag in ENDS_ITEM:
            ended, bounds = ENDS_ITEM[tag]
            for depth in range(keep - 1, max(0, keep - 8), -1):
                if stack[depth].tag in bounds:
                    break
                if stack[depth].tag in ended:
                    keep = depth
        self._close(keep)
        element = Element(tag, stack[-1], hint, len(self.blocks))
        stack.append(element)
        self.elements.append(element)
        self._open[tag] = self._open.get(tag, 0) + 1

    def _depth_of(self, tag: str) -> int:
        depth = len(self._stack) - 1
        while self._stack[depth].tag != tag:
            depth -= 1
        return depth

    def _close(self, keep: int) -> None:
        if keep < self._link_depth:
            self._in_link = False
        while len(self._stack) > keep:
            element = self._stack.pop()
            element.end = len(self.blocks)
            self._open[element.tag] -= 1
            self._stack[-1].chars += element.chars
            self._stack[-1].link_chars += element.link_chars

    def _add_block(self, line: list[str]) -> None:
        text = line[0] if len(line) == 1 else "".join(line)
        if not text or text.isspace():
            return
        link_chars = 0
        if self._in_link or _LINK in text:
            text, link_chars = self._take_links(text)
        text = text.replace(_LINK_END, "")
        element = self._stack[-1]
        if element.tag == "pre":
            text = text.replace(_BREAK, "\n").strip("\n").rstrip()
        elif _BREAK in text:
            text = "\n".join(" ".join(part.split()) for part in text.split(_BREAK)).strip()
        else:
            text = " ".join(text.split())
        if text:
            self.blocks.append(Block(element, text, link_chars))
            element.chars += len(text)
            element.link_chars += link_chars

    def _take_links(self, text: str) -> tuple[str, int]:
        """The text without the marks of links, and how much of it is links."""
        outside, *links = (_LINK + text if self._in_link else text).split(_LINK)
        parts, link_chars, is_open = [outside], 0, False
        for link in links:
            inside, end, after = link.partition(_LINK_END)
            link_chars += len(" ".join(inside.split()))
            parts += inside, after
            is_open = not end
        # One that is never closed ends with what it is in, or would make a link of all the rest.
        if links[1 if self._in_link else 0 :]:
            self._link_depth, self._blocks_of_link = len(self._stack), 0
        self._blocks_of_link += 1
        self._in_link = is_open and self._blocks_of_link <= _MAX_BLOCKS_OF_LINK
        return "".join(parts), link_chars


def _without_opaque(source: str) -> str:
    """The page without comments, scripts, its head and whatever else has no text."""
    parts, at, unclosed = [], 0, set[str]()
    while found := _OPAQUE.search(source, at):
        name = (found[1] or "").lower()
        end = -1
        if name not in unclosed:
            if name:
                closed = _ENDS[name].search(source, found.end())
                end = (source.find(">", closed.end()) + 1 or len(source)) if closed else -1
            else:
                end = source.find("-->", found.start() + 2) + 3
                end = -1 if end == 2 else end
        parts.append(source[at : found.start()])
        if end < 0:
            unclosed.add(name)
            parts.append(" " if name else "<!")
            at = found.end()
        else:
            parts.append(" ")
            at = end
    parts.append(source[at:])
    return "".join(parts)


def _without_formatting(markup: str) -> str:
    """Markup with block tags alone: formatting is dropped, links and line breaks become marks."""
    if _LINK in markup or _LINK_END in markup or _BREAK in markup:
        markup = markup.translate(_NO_MARKS)
    markup = _replaced(_LINK_TAG, _LINK, _replaced(_FORMAT, "", markup))
    markup = markup.replace("</a>", _LINK_END).replace("</A>", _LINK_END)
    return _replaced(_BREAK_TAG, _BREAK, markup)


def _replaced(pattern: re.Pattern[str], mark: str, markup: str) -> str:
    end = _last_tag_end(markup)
    return pattern.sub(mark, markup[:end]) + markup[end:]


def _split(markup: str) -> list[str]:
    """Text, then slash, name, attributes and text for each tag."""
    end = _last_tag_end(markup)
    rest = _CUT_TAG.split(markup[end:], maxsplit=1)[0]
    pieces = _TOKEN.split(markup[:end])
    pieces[-1] += rest
    return pieces


def _last_tag_end(markup: str) -> int:
    """Behind it no tag ends; looking for its end from each "<" there would take forever."""
    return markup.rfind(">") + 1
