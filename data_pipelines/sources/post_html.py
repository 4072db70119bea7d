"""The HTML of Stack Exchange's posts to text: code kept as it is, in fences."""

import html
import re

# Python's own parser takes minutes for 200 kB of "<a <a <a": this pattern never looks past the
# next angle bracket, and what is no whole tag stays text.
_TAG = re.compile(r"<!--|<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})\b[^<>]*>")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_BACKTICKS = re.compile(r"`{3,}")
_PARAGRAPHS = frozenset(
    ("p", "div", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "table", "dl")
)
_LINES = frozenset(("br", "tr", "dt", "dd"))
_CELLS = frozenset(("td", "th"))
_MAX_DEPTH = 8


def html_to_text(source: str) -> str:
    """Text of a post: paragraphs apart by a blank line, lists marked, code verbatim.

    Code blocks stand between lines of three or more backticks, code in a line between single ones.
    Takes time in proportion to the text, however it is nested.
    """
    text, at, comments = _Text(), 0, True
    for tag in _TAG.finditer(source):
        if tag.start() < at:
            continue
        if tag[0] == "<!--":
            end = source.find("-->", tag.end()) if comments else -1
            if end < 0:
                comments = False
                continue
            text.add(source[at : tag.start()])
            at = end + 3
            continue
        text.add(source[at : tag.start()])
        at = tag.end()
        if tag[1]:
            text.close(tag[2].lower())
        else:
            text.open(tag[2].lower())
    text.add(source[at:])
    return text.finish()


class _Text:
    """Takes pieces of text and tags in their order."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._line: list[str] = []
        self._has_words = False
        self._gap, self._mark = 0, ""
        self._pre = 0
        self._lists: list[int] = []
        self._too_deep = 0

    def add(self, source: str) -> None:
        if source:
            self._line.append(_unescape(source))
            self._has_words = self._has_words or not source.isspace()

    def open(self, tag: str) -> None:
        if self._pre:
            self._pre += tag == "pre"
        elif tag == "pre":
            self._break(2)
            self._pre = 1
        elif tag == "code":
            self._line.append("`")
        elif tag in ("ul", "ol"):
            self._break(1 if self._lists else 2)
            if len(self._lists) < _MAX_DEPTH:
                self._lists.append(0 if tag == "ol" else -1)
            else:
                self._too_deep += 1
        elif tag == "li":
            self._break(1)
            self._mark = self._item()
        elif tag in _CELLS:
            if self._has_words:
                self._line.append(" | ")
        elif tag in _PARAGRAPHS:
            self._break(2)
        elif tag in _LINES:
            self._break(1)

    def close(self, tag: str) -> None:
        if self._pre:
            self._pre -= tag == "pre"
            if not self._pre:
                self._fence()
        elif tag == "code":
            self._line.append("`")
        elif tag in ("ul", "ol"):
            if self._too_deep:
                self._too_deep -= 1
            elif self._lists:
                self._lists.pop()
            self._break(1 if self._lists else 2)
        elif tag in _PARAGRAPHS:
            self._break(2)
        elif tag == "li":
            self._break(1)
            self._mark = ""
        elif tag in _LINES:
            self._break(1)

    def finish(self) -> str:
        if self._pre:
            self._fence()
        self._break(0)
        return "".join(self._done)

    def _take(self) -> str:
        line = "".join(self._line)
        self._line.clear()
        self._has_words = False
        return line

    def _item(self) -> str:
        indent = "  " * (len(self._lists) - 1)
        if not self._lists or self._lists[-1] < 0:
            return f"{indent}- "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _break(self, gap: int) -> None:
        """Ends a line; the next is `gap` newlines below it, or more where more was asked for."""
        line = _SPACE.sub(" ", self._take()).strip(" ")
        if line:
            self._write(self._mark + line)
            self._mark = ""
        # A paragraph that opens inside an item stands on the item's own line.
        if not self._mark:
            self._gap = max(self._gap, gap)

    def _fence(self) -> None:
        code = self._take().strip("\n")
        if code.strip():
            longest = max((len(run) for run in _BACKTICKS.findall(code)), default=2)
            fence = "`" * (longest + 1)
            if self._mark:
                self._write(self._mark.rstrip())
                self._gap = 1
            self._mark = ""
            self._write(f"{fence}\n{code}\n{fence}")
        self._gap = 2

    def _write(self, block: str) -> None:
        if self._done:
            self._done.append("\n" * max(self._gap, 1))
        self._done.append(block)
        self._gap = 0


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a character number of thousands of digits
        return text
