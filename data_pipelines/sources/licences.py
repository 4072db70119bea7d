"""Which licences a text or a name stands for, as SPDX identifiers."""

import re
from collections.abc import Iterable

NONE_FOUND = "none found"
NOT_RECOGNISED = "not recognised"
_MAX_CHARACTERS = 1 << 17

# fmt: off
# Identifiers that are told apart; the families without a version are what some data sets say.
_IDENTIFIERS = (
    "0BSD", "AFL-3.0", "AGPL", "AGPL-1.0", "AGPL-3.0", "Apache-1.1", "Apache-2.0",
    "Artistic-1.0", "Artistic-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSD-4-Clause",
    "BSL-1.0", "BUSL-1.1", "CC-BY", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC", "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0", "CC-BY-SA", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDDL-1.0",
    "Commons-Clause", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "GPL", "GPL-1.0",
    "GPL-2.0", "GPL-3.0", "ISC", "LGPL", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "LPPL-1.3c", "MIT",
    "MIT-0", "MPL-1.1", "MPL-2.0", "MS-PL", "MS-RL", "NCSA", "OFL-1.1", "OSL-3.0", "PostgreSQL",
    "Python-2.0", "SSPL-1.0", "UPL-1.0", "Unlicense", "WTFPL", "X11", "ZPL-2.1", "Zlib",
)
# fmt: on
_KNOWN = {name.casefold(): name for name in _IDENTIFIERS} | {"apache": "Apache-2.0"}
_SAYS_NOTHING = re.compile(
    r"(?i)\s*(|other|none|null|unknown|noassertion|no[-_]license|see\b.*)\s*"
)

_FILE_NAMES = frozenset({"licence", "licences", "license", "licenses", "copying", "unlicense"})
_FILE_WORDS = _FILE_NAMES | {
    "agpl",
    "apache",
    "bsd",
    "cc0",
    "gpl",
    "isc",
    "lesser",
    "lgpl",
    "md",
    "mit",
    "mpl",
    "rst",
    "txt",
}
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]{1,200})")
_MARKS = re.compile(r"[^a-z0-9.+\s]")
_BSD = "redistribution and use in source and binary forms with or without modification are permitt"
_ISC = re.compile(
    r"permission to use copy modify and ?(?:or)? ?distribute this software for any purpose with or "
    r"without fee is hereby granted( provided that the above copyright notice)?"
)
# The title of a GNU licence is followed by its date; without one, another licence mentions it.
_GNU = re.compile(
    r"gnu (affero |lesser |library )?general public license,? version (\d)(?:\.(\d))? "
    r"(?:\d+ )?(?:january|february|march|june|july|november) \d{4}"
)
_GNU_NAMES = {"affero ": "AGPL", "lesser ": "LGPL", "library ": "LGPL", None: "GPL"}
# Source: the licences' own texts; marks that none of the others has.
_PHRASES = {
    "MIT": "permission is hereby granted free of charge to any person obtaining a copy of",
    "Apache-2.0": "apache license version 2.0",
    "Unlicense": "this is free and unencumbered software released into the public domain",
    "CC0-1.0": "cc0 1.0 universal",
    "MPL-1.1": "mozilla public license version 1.1",
    "MPL-2.0": "mozilla public license version 2.0",
    "EPL-1.0": "eclipse public license v 1.0",
    "EPL-2.0": "eclipse public license v 2.0",
    "BSL-1.0": "boost software license version 1.0",
    "Zlib": "the origin of this software must not be misrepresented",
    "WTFPL": "do what the fuck you want to public license",
    "Commons-Clause": "commons clause",
    "BUSL-1.1": "business source license 1.1",
    "SSPL-1.0": "server side public license",
    "CC-BY-NC": "attribution noncommercial",
    "CC-BY-SA": "attribution sharealike",
    "CC-BY": "creative commons attribution 4.0",
    "OFL-1.1": "sil open font license version 1.1",
}


def is_licence_file(path: str) -> bool:
    """Whether a file's name says that it is a licence: LICENSE, COPYING.LESSER, LICENSE-MIT.txt."""
    words = re.split(r"[-_.]", path.rpartition("/")[2].casefold())
    return not _FILE_NAMES.isdisjoint(words) and all(
        word in _FILE_WORDS or word.isdigit() for word in words
    )


def licences_in(text: str) -> frozenset[str]:
    """Licences whose text, title or SPDX line stands in a text; empty if none is recognised."""
    text = text[:_MAX_CHARACTERS]
    found = {name for line in _SPDX.findall(text) for name in _names(line)}
    text = " ".join(_MARKS.sub(" ", text.casefold()).split())
    found |= {name for name, phrase in _PHRASES.items() if phrase in text}
    if _BSD in text:
        if "all advertising materials mentioning" in text:
            found.add("BSD-4-Clause")
        else:
            found.add(f"BSD-{3 if 'endorse or promote products' in text else 2}-Clause")
    found |= {"ISC" if match[1] else "0BSD" for match in _ISC.finditer(text)}
    found |= {f"{_GNU_NAMES[m[1]]}-{m[2]}.{m[3] or 0}" for m in _GNU.finditer(text)}
    return frozenset(found)


def says_nothing(value: str) -> bool:
    """Whether a licence column's value leaves it open, as "other" and "see COPYING" do."""
    return _SAYS_NOTHING.fullmatch(value) is not None


class AllowList:
    """Licences under which files are taken.

    Args:
        names: SPDX identifiers; letter case, "-only" and "-or-later" do not matter.
    """

    def __init__(self, names: Iterable[str]):
        self._allowed = {_canonical(name) for name in names}

    def refused(self, licences: Iterable[str]) -> str | None:
        """None if all licences are allowed, otherwise the first that is not.

        A licence may be an SPDX expression: of "MIT OR GPL-2.0", one suffices. What nobody knows is
        "another": reasons for dropping a file are few.
        """
        for licence in sorted(licences):
            # With brackets, what an OR joins is left open: all are asked for.
            choices = [licence] if "(" in licence else re.split(r"\s+(?i:or)\s+", licence)
            refused = [self._first_refused(choice) for choice in choices]
            if None not in refused:
                return refused[0]
        return None

    def _first_refused(self, licence: str) -> str | None:
        if licence in (NONE_FOUND, NOT_RECOGNISED):
            return licence
        names = _names(licence) or [licence]
        name = next((name for name in names if name not in self._allowed), None)
        return name if name is None or name in _IDENTIFIERS else "another"


def _names(expression: str) -> list[str]:
    """Every licence of an SPDX expression; exceptions, which only permit more, are left out."""
    expression = re.sub(r"(?i)\s+with\s+[\w.+-]+", "", expression)
    return [
        _canonical(name) for name in re.split(r"(?i)\s+(?:or|and)\s+|[()\s]+", expression) if name
    ]


def _canonical(name: str) -> str:
    name = re.sub(r"(-only|-or-later|\+)$", "", name.strip().casefold())
    return _KNOWN.get(name, name)
