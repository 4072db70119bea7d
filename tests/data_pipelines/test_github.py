"""Files of repositories come with their licences, and none without an allowed one."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from data_pipelines import plan
from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all, repository_archive
from data_pipelines.sources.licences import AllowList, is_licence_file, licences_in
from llama_jax.config import CodeRules, GitHubSource

SAMPLE = Path(__file__).parents[3] / "shared" / "corpora" / "github"
MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this"
GPL = "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007\n"


def collect(path, **options):
    dropped = Dropped()
    source = open_source(GitHubSource(path=str(path), **options))
    return list(read_all(source, dropped)), dropped


def row(path, content="x = 1\n", *, repository="owner/name", licence="MIT", **others):
    return {"repo_name": repository, "path": path, "license": licence, "content": content} | others


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_a_document_says_whose_file_it_is_and_under_which_licence(tmp_path):
    write_rows(tmp_path / "a.jsonl", row("src/a b.py", ref="abc", language="Python"))
    (document,), dropped = collect(tmp_path)
    assert document.id == "a.jsonl:1"
    assert document.text == "x = 1\n"
    assert document.url == "https://github.com/owner/name/blob/abc/src/a%20b.py"
    assert dict(document.metadata) == {
        "repository": "owner/name",
        "path": "src/a b.py",
        "licence": "MIT",
        "programming_language": "Python",
    }
    assert not dropped.counts


PUBLISHED = {
    "the_stack": {
        "max_stars_repo_name": "o/n",
        "max_stars_repo_path": "a.py",
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
        "max_stars_repo_head_hexsha": "abc",
        "lang": "Python",
        "content": "x",
    },
    "the_stack_smol": {
        "repository_name": "o/n",
        "path": "a.py",
        "licenses": ["MIT"],
        "lang": "Python",
        "content": "x",
    },
    "github_code": {
        "repo_name": "o/n",
        "path": "a.py",
        "license": "mit",
        "language": "Python",
        "code": "x",
    },
    "redpajama": {
        "meta": {"repo_name": "o/n", "path": "a.py", "license": "mit", "ref": "abc"},
        "text": "x",
    },
}


@pytest.mark.parametrize("columns", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_columns_of_published_dumps_are_known(tmp_path, columns, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write_rows(path, columns)
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist([columns]), path)
    (document,), _ = collect(tmp_path)
    metadata = dict(document.metadata)
    assert (metadata["repository"], metadata["path"]) == ("o/n", "a.py")
    assert metadata["licence"].lower() in ("mit", "mit, apache-2.0")
    assert document.text == "x"


def test_files_under_other_licences_are_counted_by_licence(tmp_path):
    stated = [
        "gpl-3.0",
        "GPL-3.0-or-later",
        "MIT OR GPL-2.0",
        "MIT AND GPL-2.0",
        "BSD",
        "",
        "FOO-9",
    ]
    stated += [
        "Apache-2.0 WITH LLVM-exception",
        "GPL-2.0 OR MIT",
        "(MIT OR GPL-2.0) AND MIT",
        ["MIT", "ISC"],
        None,
    ]
    write_rows(tmp_path / "a.jsonl", *(row("a.c", licence=licence) for licence in stated))
    documents, dropped = collect(tmp_path)
    assert [d.id for d in documents] == ["a.jsonl:3", "a.jsonl:5", "a.jsonl:8", "a.jsonl:9"]
    assert dropped.counts == {
        "licence: GPL-3.0": 2,
        "licence: GPL-2.0": 2,
        "licence: another": 1,
        "licence: ISC": 1,
        "licence: none found": 2,
    }
    assert dropped.examples["licence: another"] == ["a.jsonl:7 (FOO-9; owner/name/a.c)"]


def test_the_nearest_licence_file_speaks_for_a_file_whose_record_does_not(tmp_path):
    rows = [
        row("src/before.py", licence="other"),
        row("LICENSE", MIT, licence="other"),
        row("lib/copied/COPYING", GPL, licence="other"),
        row("lib/copied/deep/a.c", licence="other"),
        row("lib/b.c", licence="see COPYING"),
        row("c.c", licence="other", repository="another/one"),
        row("notes/LICENSE", "All rights reserved.", licence="other"),
        row("notes/a.md", licence="other"),
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    documents, dropped = collect(tmp_path)
    assert [dict(d.metadata)["path"] for d in documents] == ["src/before.py", "LICENSE", "lib/b.c"]
    assert dropped.examples == {
        "licence: GPL-3.0": [
            "a.jsonl:3 (GPL-3.0; owner/name/lib/copied/COPYING)",
            "a.jsonl:4 (GPL-3.0; owner/name/lib/copied/deep/a.c)",
        ],
        "licence: none found": ["a.jsonl:6 (none found; another/one/c.c)"],
        "licence: not recognised": [
            "a.jsonl:7 (not recognised; owner/name/notes/LICENSE)",
            "a.jsonl:8 (not recognised; owner/name/notes/a.md)",
        ],
    }


def test_a_notice_beside_a_licence_does_not_hide_it(tmp_path):
    rows = [
        row("COPYING", "See the other files.", licence=""),
        row("LICENSE-MIT", MIT, licence=""),
        row("a.c", licence=""),
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    documents, _ = collect(tmp_path)
    assert {dict(d.metadata)["licence"] for d in documents} == {"MIT"}
    assert len(documents) == 3


@pytest.mark.parametrize("licence", ["()", "( OR )", "MIT GPL-9", [["MIT"], "x"], 3, {"a": 1}])
def test_what_names_no_licence_is_not_allowed(tmp_path, licence):
    write_rows(tmp_path / "a.jsonl", row("a.c", licence=licence))
    documents, dropped = collect(tmp_path)
    assert not documents
    assert dropped.counts == {"licence: another": 1}


@pytest.mark.parametrize("concatenate", [False, True])
def test_hostile_names_do_no_harm(tmp_path, concatenate):
    deep = "[" * 900 + "]" * 900
    rows = [
        row("", repository="o/n"),
        row("a.c", repository=""),
        row("\ud800/../../a.c\0", repository="\udfff"),
        row("d/" * 100_000, repository="o/n", licence=""),
        row("b.c", repository="x" * 100_000),
        row(["a"], repository={"b": 1}),
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(f'{{"repo_name": {deep}, "path": {deep}, "license": {deep}, "content": "x"}}\n')
    documents, dropped = collect(tmp_path, concatenate_repositories=concatenate)
    assert all(len(value) <= 4096 for d in documents for _, value in d.metadata)
    assert dropped.examples["no repository or no path"] == ["a.jsonl:1", "a.jsonl:2"]
    assert all(d.text.encode() and d.url.encode() for d in documents if d.url)
    json.dumps([d._asdict() for d in documents], ensure_ascii=False).encode()


def test_users_may_allow_other_licences(tmp_path):
    write_rows(tmp_path / "a.jsonl", row("a.c", licence="CC-BY"), row("b.c", licence="MIT"))
    documents, _ = collect(tmp_path, licences=("cc-by",))
    assert [d.id for d in documents] == ["a.jsonl:1"]


def test_a_repository_is_one_document_in_order_of_paths(tmp_path):
    rows = [
        row("z.py", "last\n"),
        row("a.py", "other\n", repository="p/q", licence=["MIT", "Apache-2.0", "BSD"]),
        row("LICENSE", MIT, licence=""),
        row("b/a.py", "second\n", licence=""),
        row("b/gpl.py", licence="GPL-2.0"),
        row("b/gpl.py", licence="GPL-2.0", repository="p/q"),
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    (first, second), dropped = collect(tmp_path, concatenate_repositories=True)
    assert first.id == "a.jsonl:3"
    assert first.text == f"# LICENSE\n{MIT}\n\n# b/a.py\nsecond\n\n\n# z.py\nlast\n"
    assert first.url == "https://github.com/owner/name"
    assert dict(first.metadata) == {"repository": "owner/name", "licence": "MIT", "files": "3"}
    assert second.text == "# a.py\nother\n"
    assert dict(second.metadata)["licence"] == "Apache-2.0, BSD, MIT"
    assert dropped.counts == {"licence: GPL-2.0": 2}


def test_file_filters_see_files_before_they_are_put_together(tmp_path):
    write_rows(tmp_path / "a.jsonl", row("a.py"), row("b.bin"), row("c.py"))
    rules = CodeRules(min_letters_per_token=0)
    (document,), dropped = collect(tmp_path, concatenate_repositories=True, file_filters=(rules,))
    assert document.text == "# a.py\nx = 1\n\n\n# c.py\nx = 1\n"
    assert dropped.counts == {"code: extension": 1}


def test_a_long_repository_is_cut_between_files(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.sources.github._MAX_REPOSITORY_CHARACTERS", 10)
    write_rows(tmp_path / "a.jsonl", *(row(f"{n}.py", "12345") for n in range(5)))
    documents, _ = collect(tmp_path, concatenate_repositories=True)
    assert [dict(d.metadata)["files"] for d in documents] == ["2", "2", "1"]
    assert [d.id for d in documents] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:5"]


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


def tar_of(path, members, mode="w:gz"):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", "w:"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2")]
)
def test_a_tar_is_a_repository_under_the_licence_in_it(tmp_path, suffix, mode):
    members = {
        "n-1/a.py": b"a = 1\n",
        "n-1/sub/b.py": b"\xef\xbb\xbfb\n",
        "n-1/LICENSE": MIT.encode(),
    }
    tar_of(tmp_path / "owner" / f"n.{suffix}", members, mode)
    documents, dropped = collect(tmp_path)
    assert {d.id: d.text for d in documents} == {
        f"owner/n.{suffix}:n-1/a.py": "a = 1\n",
        f"owner/n.{suffix}:n-1/sub/b.py": "b\n",
        f"owner/n.{suffix}:n-1/LICENSE": MIT,
    }
    assert {dict(d.metadata)["repository"] for d in documents} == {"owner/n"}
    assert not dropped.counts


def test_what_is_no_text_of_a_tar_is_counted_and_no_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_archive, "MAX_RECORD_BYTES", 2000)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    members = {
        "LICENSE": MIT.encode(),
        "link": str(secret),
        "../up.py": b"x",
        "/abs.py": b"x",
        "latin.py": b"\xe9\xe8",
        "picture": b"a\0b",
        "long.py": b"x" * 2001,
        "last.py": b"x",
    }
    tar_of(tmp_path / "a" / "r.tar.gz", members)
    documents, dropped = collect(tmp_path / "a")
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE", "r.tar.gz:last.py"]
    assert dropped.examples == {
        "a link or a device": ["r.tar.gz:link"],
        "a path out of the archive": ["r.tar.gz:../up.py", "r.tar.gz:/abs.py"],
        "not UTF-8": ["r.tar.gz:latin.py"],
        "no text: has NUL characters": ["r.tar.gz:picture"],
        "longer than 2,000 bytes": ["r.tar.gz:long.py"],
    }


def write_checkout(folder, name):
    for path, text in {"LICENSE": MIT, "src/a.py": f"# {name}\n", ".git/config": "[core]"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.mark.parametrize("below", ["", "owner/name"])
def test_a_checkout_is_a_repository_under_the_licence_in_it(tmp_path, below):
    root = tmp_path / "all"
    checkout = root / below
    write_checkout(checkout, "a")
    write_checkout(checkout / "inner", "b")
    write_rows(checkout / "data.jsonl", row("nobody/looks-here.py"))
    secret = tmp_path / "secret.py"
    secret.write_text("password = 1\n")
    (checkout / "link.py").symlink_to(secret)
    (checkout / "folder").symlink_to(tmp_path)
    documents, dropped = collect(root)
    name = below or "all"
    assert [d.id for d in documents] == [
        f"{name}:{path}"
        for path in ("LICENSE", "data.jsonl", "inner/LICENSE", "inner/src/a.py", "src/a.py")
    ]
    assert dict(documents[-1].metadata)["licence"] == "MIT"
    assert dropped.counts == {"a link or a device": 2}


def test_checkouts_stand_beside_other_raw_files_and_changes_in_them_are_noticed(tmp_path):
    write_checkout(tmp_path / "owner" / "name", "a")
    write_rows(tmp_path / "rows.jsonl", row("x.py"))
    (raw, rows) = open_source(GitHubSource(path=str(tmp_path))).files()
    assert (raw.name, rows.name) == ("owner/name", "rows.jsonl")
    before = plan.fingerprint(raw)
    (tmp_path / "owner/name/src/a.py").write_text("# longer\n")
    assert plan.fingerprint(raw) != before


def test_a_tar_cut_short_gives_what_came_before(tmp_path):
    path = tar_of(tmp_path / "a" / "r.tar", {"LICENSE": MIT.encode(), "b.py": b"x" * 2000}, "w:")
    path.write_bytes(path.read_bytes()[:2100])
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar:LICENSE"]
    assert list(dropped.counts) == ["file damaged, the rest of it is lost (ReadError)"]


def test_a_damaged_header_is_no_end_of_the_tar(tmp_path):
    members = {"LICENSE": MIT.encode(), "b.py": b"x", "c.py": b"x"}
    path = tar_of(tmp_path / "a" / "r.tar.gz", members)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[1024 + 150] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE"]
    assert dropped.examples == {"file damaged, the rest of it is lost (EOFError)": ["r.tar.gz"]}


def test_a_bomb_of_a_tar_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_archive, "_MAX_ARCHIVE_BYTES", 1 << 20)
    members = {"LICENSE": MIT.encode(), "zeros.py": b"\0" * (2 << 20), "b.py": b"x"}
    path = tar_of(tmp_path / "a" / "r.tar.gz", members)
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE"]
    assert "larger than an archive may be, the rest of it is lost" in dropped.counts


def test_a_header_that_asks_for_all_memory_is_refused(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "r.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"1" * 10240)
    documents, dropped = collect(path)
    assert not documents
    assert list(dropped.counts) == ["larger than an archive may be, the rest of it is lost"]


def test_a_chain_of_extended_headers_does_not_exhaust_the_stack(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 512
    header = info.tobuf(tarfile.USTAR_FORMAT) + b"11 path=aa\n".ljust(512, b"\0")
    path = tmp_path / "r.tar.gz"
    path.write_bytes(gzip.compress(header * 5000))
    documents, dropped = collect(path)
    assert not documents
    assert sum(dropped.counts.values()) == 1


def test_records_without_a_path_are_counted(tmp_path):
    write_rows(tmp_path / "a.jsonl", {"content": "x", "repo_name": "o/n", "license": "MIT"})
    documents, dropped = collect(tmp_path)
    assert not documents
    assert dropped.examples == {"no repository or no path": ["a.jsonl:1"]}


@pytest.mark.parametrize("field", ["licences", "text_fields", "path_fields"])
def test_a_config_that_would_leave_out_every_file_is_refused(field):
    with pytest.raises(ValueError, match=rf"sources\.github\.{field} is empty"):
        GitHubSource(path="x", **{field: ()})


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no corpora beside the project")
def test_real_files_come_with_their_repository_and_licence():
    path = SAMPLE / "code-00001-of-00003.parquet"
    documents, dropped = collect(path)
    assert len(documents) + sum(dropped.counts.values()) == 4973
    by_path = {d.metadata[0][1] + "/" + d.metadata[1][1]: d for d in documents}
    # Its records say "see COPYING": crates with LICENSE-MIT alone are under it, the root under two.
    assert (
        dict(by_path["BurntSushi/ripgrep/crates/matcher/LICENSE-MIT"].metadata)["licence"] == "MIT"
    )
    assert dropped.counts["licence: Unlicense"] > 10
    assert all(dict(d.metadata)["licence"] for d in documents)
