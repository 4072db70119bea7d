"""The body of a paper from its LaTeX files: one text, its author's macros expanded.

What remains is LaTeX still: sections, prose, formulas. Gone are comments, the preamble and all
before the first section, and the bibliography. Source: the arXiv data of LLaMA, Touvron et al.
2023 (arXiv:2302.13971), section 2.1, after Lewkowycz et al. 2022 (arXiv:2206.14858).
"""

import functools
import posixpath
import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_CHARACTERS = 32 << 20  # of a paper at any stage: what a macro or \input bomb may grow to
_MAX_DEPTH = 24  # of \input, and of macros in macros

_VERBATIM = re.compile(r"\\begin\{(verbatim\*?|lstlisting|comment)\}")
# The first group runs over what is no comment, from a backslash on: it may stand before a percent.
_COMMENT = re.compile(r"(\\.(?:[^\\%]++|\\.)*+)|%[^\n]*(?:\n[ \t]*|\Z)", re.S)
_ENDS_PLAIN = re.compile(r"\\(?:bye|enddocument)\b")
_INPUT = re.compile(
    r"\\(?:(?:input|include|subfile|subfileinclude)\s*\{([^{}\n]+)\}"
    r"|(?:sub)?(?:import|includefrom|inputfrom)\s*\{([^{}\n]*)\}\s*\{([^{}\n]+)\}"
    r"|input\s+([^\s{}\\%]+))"
)
_BEGIN, _END = re.compile(r"\\begin\s*\{document\}"), re.compile(r"\\(?:end\s*\{document\}|bye\b)")
_SECTION = re.compile(r"\\(?:part|chapter|section|subsection|heading|head)\b\*?")
_BIBLIOGRAPHY = re.compile(
    r"\\begin\s*\{thebibliography\}.*?(?:\\end\s*\{thebibliography\}|\Z)"
    r"|\\(?:bibliography|bibliographystyle|nobibliography|addbibresource)\s*\{[^{}]*\}"
    r"|\\printbibliography(?:\[[^\]]{0,1000}+\])?"
    r"|\\Refs\b.*?(?:\\endRefs\b|\Z)",
    re.S,
)
# Blanks and options are taken once, and options that never end given up soon: each of many starts
# would look through the rest of the text else.
_DEFINITION = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|DeclareRobustCommand|DeclareMathOperator)\*?\s*"
    r"(?:\{\s*\\(?P<braced>[A-Za-z]+)\s*\}|\\(?P<bare>[A-Za-z]++))\s*+"
    r"(?:\[(?P<count>[1-9])\])?\s*+(?:\[(?P<default>[^\]\n]{0,1000}+)\])?\s*+\{"
    r"|\\(?:long\s*)?def\s*\\(?P<plain>[A-Za-z]++)\s*+(?P<parameters>(?:#[1-9])*+)\s*+\{"
)
# Bodies that do something other than stand for text: these stay as they were called.
_PROGRAM = re.compile(
    r"@|\\(?:csname|if|fi\b|else\b|let\b|[egx]?def\b|expandafter|futurelet|catcode)"
)


# From its first blank on, a run is looked at once.
_TRAILING_BLANKS = re.compile(r"(?<![ \t])[ \t]++\n")
_CALL = re.compile(r"\\([A-Za-z]++)(?!@)")
_SLOT = re.compile(r"#([1-9])")
_BRACE = re.compile(r"\\.|[{}]", re.S)
_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|[^}]", re.S)
_OPTIONAL = re.compile(r"\s*\[([^\]]*)\]")


class _Macro(NamedTuple):
    num_arguments: int
    default: str | None  # of the first argument, which is then optional
    body: str


class PaperTooLargeError(Exception):
    """A paper grew beyond `MAX_CHARACTERS`."""


def clean_paper(files: Mapping[str, str]) -> str | None:
    """Text of the paper that a set of LaTeX files makes.

    Args:
        files: Text of each file by its path within the paper, with forward slashes.

    Returns:
        The body of the file that is the paper, the others read in where it asks for them; None
        where there is no LaTeX document among them.

    Raises:
        PaperTooLargeError: If macros or files multiply beyond `MAX_CHARACTERS`.
    """
    files = {name: _drop_comments(text) for name, text in files.items()}
    # The longest document is the paper: the others are slides, cover letters, supplements.
    papers = [_read_in(name, files) for name in sorted(files) if _is_root(files[name])]
    if not papers:
        return None
    return _body(_expand(max(papers, key=len)))


def _is_root(text: str) -> bool:
    # Its class may be chosen in a preamble that it reads in; plain TeX and AMS-TeX know no class.
    return bool(_BEGIN.search(text) or _ENDS_PLAIN.search(text))


def _drop_comments(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kept, place = [], 0
    while block := _VERBATIM.search(text, place):
        end = text.find(f"\\end{{{block[1]}}}", block.end())
        if end < 0:
            break
        kept.append(_COMMENT.sub(_without_comment, text[place : block.start()]))
        place = end + len(f"\\end{{{block[1]}}}")
        kept.append("" if block[1] == "comment" else text[block.start() : place])
    kept.append(_COMMENT.sub(_without_comment, text[place:]))
    return "".join(kept).partition("\\endinput")[0]


def _without_comment(found: re.Match[str]) -> str:
    if found[1] is not None:
        return found[1]
    # TeX swallows the line's end and the next one's indentation; a line of its own goes whole.
    text, start = found.string, found.start()
    alone = not text[text.rfind("\n", 0, start) + 1 : start].strip()
    return "" if alone or "\n" not in found[0] else "\n"


def _read_in(root: str, files: Mapping[str, str]) -> str:
    """The root with every file in the place where it is asked for; none within itself."""
    folder = posixpath.dirname(root)
    budget = MAX_CHARACTERS

    def read(name: str, above: tuple[str, ...]) -> str:
        nonlocal budget
        text = files[name]
        budget -= len(text)
        if budget < 0:
            raise PaperTooLargeError

        def fill(call: re.Match[str]) -> str:
            inner = call[1] or call[4] or posixpath.join(call[2] or "", call[3] or "")
            found = _find(inner.strip().strip('"'), (folder, posixpath.dirname(name)), files)
            if found is None or found in above or len(above) >= _MAX_DEPTH:
                return ""
            return read(found, (*above, found))

        return _INPUT.sub(fill, text)

    return read(root, (root,))


def _find(name: str, folders: tuple[str, ...], files: Mapping[str, str]) -> str | None:
    for folder in folders:
        path = posixpath.normpath(posixpath.join(folder, name))
        for candidate in (f"{path}.tex", path, f"{path}.ltx"):
            if candidate in files:
                return candidate
    return None


def _body(text: str) -> str:
    if begin := _BEGIN.search(text):
        text = text[begin.end() :]
    if end := _END.search(text):
        text = text[: end.start()]
    if section := _SECTION.search(text):
        text = text[section.start() :]
    text = _BIBLIOGRAPHY.sub("", text)
    text = _TRAILING_BLANKS.sub("\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _expand(text: str) -> str:
    """Replaces the macros that the authors defined, and takes out their definitions."""
    macros, text = _take_definitions(text)
    macros = {name: macro for name, macro in macros.items() if not _PROGRAM.search(macro.body)}
    if not macros:
        return text
    budget = 8 * MAX_CHARACTERS  # of what is read: arguments are, once in each call around them
    expanded: dict[str, str] = {}  # those without arguments, which make up most of the calls

    def spend(characters: int) -> None:
        nonlocal budget
        budget -= characters
        if budget < 0:
            raise PaperTooLargeError

    def expand(text: str, above: frozenset[str], depth: int) -> str:
        spend(len(text))
        parts, place, seen, groups = [], 0, 0, _Groups(text)
        while found := _CALL.search(text, seen):
            seen, name = found.end(), found[1]
            if (macro := macros.get(name)) is None:
                continue
            arguments, end = _arguments(groups, seen, macro)
            parts.append(text[place : found.start()])
            place = seen = end
            if arguments is None or name in above or depth >= _MAX_DEPTH:
                parts.append(text[found.start() : end])
                continue
            if arguments:
                # In the caller's place: there a macro may well stand in its own argument.
                given = [expand(argument, above, depth + 1) for argument in arguments]
                parts.append(expand(_fill(macro.body, given), above | {name}, depth + 1))
            elif above:
                parts.append(expand(macro.body, above | {name}, depth + 1))
            else:
                if name not in expanded:
                    expanded[name] = expand(macro.body, frozenset({name}), depth + 1)
                parts.append(expanded[name])
                spend(len(parts[-1]))
            if not arguments and text.startswith("{}", end):
                place = seen = end + 2
            elif text[end : end + 1].isalpha() and parts[-1][-1:].isalpha():
                parts.append(" ")  # where the macro's name ended at a letter, so does its text
        parts.append(text[place:])
        if sum(map(len, parts)) > MAX_CHARACTERS:
            raise PaperTooLargeError
        return "".join(parts)

    return expand(text, frozenset(), 0)


def _fill(body: str, arguments: list[str]) -> str:
    return _SLOT.sub(
        lambda slot: arguments[int(slot[1]) - 1] if int(slot[1]) <= len(arguments) else "",
        body,
    )


def _take_definitions(text: str) -> tuple[dict[str, _Macro], str]:
    """Macros by name, the last definition of each, and the text without any of them."""
    macros, kept, place = {}, [], 0
    while found := _DEFINITION.search(text, place):
        end = _close(text, found.end() - 1)
        if end is None:
            break
        name = found["braced"] or found["bare"] or found["plain"]
        body = text[found.end() : end - 1]
        if "MathOperator" in found[0]:
            body = f"\\operatorname{{{body}}}"
        count = int(found["count"] or (found["parameters"] or "").count("#"))
        # One that is defined by itself adds to an older meaning, which stays LaTeX's.
        if f"\\{name}" not in body or not re.search(rf"\\{name}(?![A-Za-z])", body):
            macros[name] = _Macro(count, found["default"], body)
        kept.append(text[place : found.start()])
        place = end
    return macros, "".join([*kept, text[place:]])


def _arguments(groups: "_Groups", place: int, macro: _Macro) -> tuple[list[str] | None, int]:
    """Arguments of a call and where it ends; None for the arguments where some are missing."""
    text = groups.text
    if macro.num_arguments == 0:
        # TeX skips the blanks behind a name; we keep them, for they separate words.
        return [], place
    arguments = []
    if macro.default is not None:
        optional = _OPTIONAL.match(text, place) if place < groups.last_bracket else None
        arguments.append(optional[1] if optional else macro.default)
        place = optional.end() if optional else place
    while len(arguments) < macro.num_arguments:
        while place < len(text) and text[place] in " \t\n":
            place += 1
        if place >= len(text):
            return None, place
        if text[place] == "{":
            end = groups.ends.get(place)
            if end is None:
                return None, place
            arguments.append(text[place + 1 : end - 1])
        else:
            token = _TOKEN.match(text, place)
            if token is None:
                return None, place
            arguments.append(token[0])
            end = token.end()
        place = end
    return arguments, place


class _Groups:
    """The groups and brackets of a text, found in one pass when the first is asked for."""

    def __init__(self, text: str):
        self.text = text

    @functools.cached_property
    def last_bracket(self) -> int:
        """Where the last closing bracket is; -1 where there is none."""
        return self.text.rfind("]")

    @functools.cached_property
    def ends(self) -> dict[int, int]:
        """Where each group ends, just behind its brace, by where it opens."""
        ends, opened = {}, []
        for found in _BRACE.finditer(self.text):
            if found[0] == "{":
                opened.append(found.start())
            elif found[0] == "}" and opened:
                ends[opened.pop()] = found.end()
        return ends


def _close(text: str, opening: int) -> int | None:
    """Where the group that opens there ends, just behind its brace; None if it never does."""
    depth = 0
    for found in _BRACE.finditer(text, opening):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            depth -= 1
            if depth == 0:
                return found.end()
    return None
