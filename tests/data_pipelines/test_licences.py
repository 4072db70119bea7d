"""A licence is told by what no other one says."""

import pytest

from data_pipelines.sources.licences import AllowList, is_licence_file, licences_in
from tests.data_pipelines.github_rows import GPL, MIT

TEXTS = {
    "MIT": MIT,
    "BSD-2-Clause": """Redistribution and use in source and binary forms, with or without
        modification, are permitted provided that the following conditions are met""",
    "BSD-3-Clause": """Redistribution and use in source and binary forms, with or without
        modification, are permitted. Neither the name of X nor the names of its contributors may be
        used to endorse or promote products derived from this software""",
    "Apache-2.0": "        Apache License\n   Version 2.0, January 2004",
    "ISC": """Permission to use, copy, modify, and/or distribute this software for any purpose with
        or without fee is hereby granted, provided that the above copyright notice appears""",
    "0BSD": """Permission to use, copy, modify, and/or distribute this software for any purpose with
        or without fee is hereby granted.""",
    "Unlicense": "This is free and unencumbered software released into the public domain.",
    "CC0-1.0": "CC0 1.0 Universal",
    "MPL-2.0": """Mozilla Public License Version 2.0. 1.12. "Secondary License" means either the GNU
        General Public License, Version 2.0, the GNU Lesser General Public License, Version 2.1""",
    "GPL-2.0": "GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991",
    "GPL-3.0": GPL + "version 3 of the GNU Affero General Public License",
    "LGPL-2.1": """GNU LESSER GENERAL PUBLIC LICENSE Version 2.1, February 1999
        opt to apply the terms of the ordinary GNU General Public License, version 2, instead""",
    "AGPL-3.0": "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007",
    "GPL-2.0 MIT": "/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */",
    "GPL-3.0 MIT": MIT + "\n\n" + GPL,
    "": "All rights reserved. Copyright the authors.",
}


@pytest.mark.parametrize(("expected", "text"), TEXTS.items())
def test_licences_are_told_by_their_texts(expected, text):
    assert licences_in(text) == set(expected.split())


def test_comment_marks_and_lines_do_not_hide_a_licence():
    assert licences_in("/*\n * " + MIT.replace(" ", "\n * ").upper()) == {"MIT"}


def test_licence_files_are_told_by_their_names():
    names = (
        "LICENSE a/LICENCE.txt COPYING COPYING.LESSER LICENSE-MIT License.md UNLICENSE MIT-LICENSE"
    )
    assert all(map(is_licence_file, names.split()))
    names = "license.py licenses.go LICENSES.json copying_test.c LICENSE/a.txt relicense README"
    assert not any(map(is_licence_file, names.split()))


def test_a_licence_beside_another_must_be_allowed_too():
    assert AllowList(["mit"]).refused(["MIT", "GPL-3.0"]) == "GPL-3.0"
    assert AllowList(["mit", "gpl-3.0-or-later"]).refused(["MIT", "GPL-3.0-only"]) is None
