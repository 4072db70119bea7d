"""Wikitext to plain text: one pass over each kind of markup, linear in the length of the page.

Nothing here calls itself and no pattern can backtrack over more than a line, so a page of a
million open braces takes as long as one of prose.

Source: MediaWiki's own description of the language, https://www.mediawiki.org/wiki/Help:Formatting
and https://www.mediawiki.org/wiki/Preprocessor_ABNF. Deviation: templates are not expanded.
"""

import html
import re

from . import wikitext_names as names

# What stands in the text between two steps, as characters that no text may hold: Unicode reserves
# U+FDD0 to U+FDEF for use inside a program.
_TABLE, _END_TABLE = "\ufdd0", "\ufdd1"
_LITERAL = "[]{}|'=*#:;<>&_~-!\n ()/"
_HIDE = {ord(char): 0xFDD2 + i for i, char in enumerate(_LITERAL)}
_SHOW = {chr(code): _LITERAL[i] for i, code in enumerate(_HIDE.values())}
_RESERVED = re.compile("[\ufdd0-\ufdef]")

_ALL_TAGS = names.DROPPED_TAGS | names.LITERAL_TAGS | names.BREAK_TAGS | names.PLAIN_TAGS
_TAG = re.compile(
    r"<(?:!--|(/?)\s*(" + "|".join(sorted(_ALL_TAGS | {"table"}, key=len)[::-1]) + r")\b([^<>]*)>)",
    re.IGNORECASE,
)
_ENDS = {
    name: re.compile(rf"</\s*{name}\s*>|<{name}\b[^<>]*(?<!/)>", re.IGNORECASE)
    for name in names.DROPPED_TAGS | names.LITERAL_TAGS
}

_POEM = re.compile(r"(</?poem\b[^<>]*>)")
_SIMPLE_LINK = re.compile(r"\[\[(?:[^\[\]{}|:\n]*+\|([^\[\]{}|\n]*+)|([^\[\]{}|:\n]*+))\]\]")
_PARAMETER = re.compile(r"\{\{\{[^{}]*+\}\}\}")
_TABLE_START = re.compile(r"\n[ \t:*#]*+\{\|")
_TABLE_END = re.compile(r"\n[ \t]*+\|\}(?!\})")
_BRACKET = re.compile(rf"(\{{\{{|\}}\}}|\[\[|\]\]|{_TABLE}|{_END_TABLE})")
_CLOSES = {"}}": "{{", "]]": "[[", _END_TABLE: _TABLE}
# MediaWiki's own limit was 40 (its $wgMaxTemplateDepth); deeper content is dropped.
_MAX_DEPTH = 40
_STOPS = frozenset(",;:.")
_LANGUAGE = re.compile(r"[a-z]{2,3}")

# Patterns begin with a character where they can: a search for one is ten times as fast.
_ELISION = re.compile(r"'''(?<=\w''')(?=\w[^'\n]*+''(?!'))")
_QUOTES = re.compile(r"'''''|'''|''")
_EXTERNAL = re.compile(
    r"\[(?:(?:https?|ftp)://|//|mailto:)[^\s\[\]<>]*+[ \t]*+([^\[\]\n]*+)\]", re.IGNORECASE
)
_MAGIC = re.compile(r"__[A-ZÀ-ÞЀ-Я](?:_?[A-ZÀ-ÞЀ-Я]){2,40}__")
_SPACES = re.compile("  +")
_PARENTHESIS = re.compile(r"\((?:[ ,;:/·–—-]*+(?:\)|$)|( *+[,;:][ ,;:]*+| ++))", re.MULTILINE)
_HAS_END = re.compile(r"\)(?<=[ ,;]\))")
_END = re.compile(r"(?<![ ,;])[ ,;]++\)")
_GAP = re.compile(r" ([,.])(?<=\S..)(?=\s|$)")
_HEADING = re.compile(r"(={1,6})(.+?)\1\s*$")


def to_text(wikitext: str, *, hidden: frozenset[str] = names.HIDDEN_NAMESPACES) -> str:
    """Prose of a page, a paragraph a line, its headings as lines of their own.

    Templates, tables, references, pictures and categories are dropped, a few templates that show
    their arguments apart; so are sections of references and links, and headings with nothing under
    them. List items start with "- ". Formulas become "$TeX$".

    Args:
        wikitext: Source of the page.
        hidden: Lower-case names of the namespaces whose links show no text.
    """
    text = _without_tags(_verses("\n" + _RESERVED.sub("", wikitext).replace("\r", "")))
    if "{|" in text:
        text = _TABLE_START.sub("\n" + _TABLE, text)
        text = _TABLE_END.sub("\n" + _END_TABLE, text)
    text = _SIMPLE_LINK.sub(r"\1\2", text)
    text = _without_brackets(_PARAMETER.sub("", text), hidden)
    text = _EXTERNAL.sub(r"\1", text)
    if "''" in text:
        text = _QUOTES.sub("", _ELISION.sub("'", text))
    if "__" in text:
        text = _MAGIC.sub("", text)
    if "&" in text:
        text = html.unescape(text)
    text = _lines(_without_gaps(text))
    return _RESERVED.sub(lambda match: _SHOW.get(match[0], ""), text)


def _without_gaps(text: str) -> str:
    """Text without what dropped templates leave behind: "( , born 1950)", "word , word"."""
    for blank, instead in (("\u00a0", " "), ("\t", " "), ("\u00ad", ""), ("\u200b", "")):
        text = text.replace(blank, instead)
    text = _PARENTHESIS.sub(lambda match: "(" if match[1] else "", _SPACES.sub(" ", text))
    if _HAS_END.search(text):
        text = _END.sub(")", text)
    for mark in ":;,":
        text = text.replace(f"{mark} ,", mark)
    return _GAP.sub(r"\1", _SPACES.sub(" ", text))


def _verses(text: str) -> str:
    """Text whose lines inside <poem> are paragraphs of their own."""
    if "<poem" not in text:
        return text
    parts = _POEM.split(text)
    for number in range(2, len(parts), 2):
        if parts[number - 1][1] != "/":
            parts[number] = parts[number].replace("\n", "\n\n")
    return "".join(parts)


def _without_tags(text: str) -> str:
    """Text without comments and tags; contents that are no wikitext are put out of reach."""
    parts, position, unclosed = [], 0, set[str]()
    while found := _TAG.search(text, position):
        parts.append(text[position : found.start()])
        position = found.end()
        closing, name, attributes = found.groups()
        if name is None:
            end = text.find("-->", position)
            position = len(text) if end < 0 else end + 3
            continue
        name = name.lower()
        if name == "table":
            parts.append("\n" + (_END_TABLE if closing else _TABLE))
        elif name in names.BREAK_TAGS:
            parts.append("\n\n")
        elif name in _ENDS and not closing and not attributes.endswith("/"):
            # Each name may search in vain once: this keeps many open tags linear.
            end = None if name in unclosed else _ENDS[name].search(text, position)
            if end is None:
                unclosed.add(name)
            elif end[0].startswith("</"):
                if name in names.LITERAL_TAGS:
                    parts.append(_literal(name, text[position : end.start()]))
                position = end.end()
    parts.append(text[position:])
    return "".join(parts)


def _literal(name: str, content: str) -> str:
    content = html.unescape(content)
    if name == "math":
        content = f"${' '.join(content.split())}$"
    elif name in ("pre", "source", "syntaxhighlight"):
        content = content.strip("\n")
    return content.translate(_HIDE)


def _without_brackets(text: str, hidden: frozenset[str]) -> str:
    """Text with templates and tables gone and links replaced by what they show."""
    parts = _BRACKET.split(text)
    texts, tokens = parts[::2], parts[1::2]
    partners = _partners(tokens)
    out, frames, number = [texts[0]], list[list[str]](), 0
    while number < len(tokens):
        bracket, partner = tokens[number], partners[number]
        if partner > number:
            if len(frames) >= _MAX_DEPTH or not _shows(bracket, texts[number + 1], hidden):
                number = partner
                if texts[number + 1][:1] in _STOPS:
                    out[-1] = out[-1].rstrip(" ")
            else:
                frames.append(out)
                out = []
        elif partner >= 0:
            content = "".join(out)
            out = frames.pop()
            out.append(_link(content) if bracket == "]]" else _template(content))
        number += 1
        out.append(texts[number])
    return "".join(out)


def _partners(tokens: list[str]) -> list[int]:
    """Index of the bracket that each one pairs with, or -1: a bracket alone means nothing."""
    partners, stack = [-1] * len(tokens), list[int]()
    waiting = {"{{": 0, "[[": 0, _TABLE: 0}
    for number, token in enumerate(tokens):
        opener = _CLOSES.get(token)
        if opener is None:
            stack.append(number)
            waiting[token] += 1
        elif waiting[opener] and (opener != "[[" or tokens[stack[-1]] == "[["):
            # The end of a template or a table also ends what was left open inside it.
            while True:
                top = stack.pop()
                waiting[tokens[top]] -= 1
                if tokens[top] == opener:
                    break
            partners[top], partners[number] = number, top
    return partners


def _shows(bracket: str, content: str, hidden: frozenset[str]) -> bool:
    """Whether something that starts so leaves any text."""
    if bracket == "[[":
        prefix, colon, _ = content.partition(":")
        if not colon:
            return True
        prefix = prefix.strip().replace("_", " ")
        is_language = _LANGUAGE.fullmatch(prefix) or prefix in names.LONG_LANGUAGES
        return prefix.lower() not in hidden and not is_language
    if bracket == "{{":
        name = _template_name(content.partition("|")[0])
        return (
            name in names.FIRST_ARGUMENT
            or name in names.LAST_ARGUMENT
            or name in names.DASHES
            or name in names.MEASURES
            or name.startswith("lang-")
        )
    return False


def _template_name(text: str) -> str:
    name = text.strip().replace("_", " ").lower()
    return "formatnum" if name.startswith("formatnum:") else name


def _link(content: str) -> str:
    target, bar, label = content.partition("|")
    return label.rpartition("|")[2] if bar else target.strip().removeprefix(":")


def _template(content: str) -> str:
    """What a template shows, of those that `_shows` lets through."""
    head, *arguments = content.split("|")
    name = _template_name(head)
    if name in names.DASHES:
        return names.DASHES[name]
    if head.lower().strip().startswith("formatnum:"):
        return head.partition(":")[2].strip()
    plain, named = list[str](), dict[str, str]()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and len(key) < 30:
            named[key.strip().lower()] = value.strip()
        else:
            plain.append(argument.strip())
    if name in names.MEASURES:
        return " ".join(plain[:2] if plain[1:2] not in (["to"], ["and"], ["by"]) else plain[:4])
    if name in names.LAST_ARGUMENT and plain:
        return plain[-1]
    return plain[0] if plain else named.get("1") or named.get("text") or named.get("quote") or ""


def _lines(text: str) -> str:
    """Paragraphs, list items and the headings that have something under them."""
    out, headings = list[str](), list[tuple[int, str]]()
    dropped_level, goes_on = 0, False
    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            goes_on = False
            continue
        first = line[0]
        if first == "=" and (heading := _HEADING.match(line)):
            level, title, goes_on = len(heading[1]), heading[2].strip(), False
            if dropped_level and level > dropped_level:
                continue
            dropped = title.lower().rstrip(":") in names.DROPPED_SECTIONS
            dropped_level = level if dropped else 0
            while headings and headings[-1][0] >= level:
                headings.pop()
            if not dropped:
                headings.append((level, title))
            continue
        if dropped_level or first == "|":
            continue
        if first in "*#:;-":
            line = _item(line)
        if not any(map(str.isalnum, line)):
            goes_on = False
            continue
        if headings:
            out += (part for _, title in headings for part in ("\n", title))
            headings.clear()
        # Lines without an empty line between them are one paragraph; indented ones stay apart.
        if goes_on and first not in "*#:;-" and raw[0] != " ":
            out += (" ", line)
        else:
            out += ("\n", line)
        goes_on = first not in "*#:;" and raw[0] != " "
    return "".join(out[1:])


def _item(line: str) -> str:
    """A list item or an indented line without its markers, or a ruler without its dashes."""
    if line[0] == "-":
        return line.lstrip("-").strip() if line.startswith("----") else line
    content = line.lstrip("*#:; ")
    # A citation that was dropped leaves the stop behind it.
    if content[:2] in (". ", ", "):
        content = content[2:]
    return f"- {content}" if content and line[0] in "*#" else content
