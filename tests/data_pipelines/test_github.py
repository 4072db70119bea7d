"""Files of repositories come with their licences, and none without an allowed one."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from llama_jax.config import CodeRules, GitHubSource
from tests.data_pipelines.github_rows import GPL, MIT, collect, row, write_rows

SAMPLE = Path(__file__).parents[3] / "shared" / "corpora" / "github"


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


def test_records_without_a_path_are_counted(tmp_path):
    write_rows(tmp_path / "a.jsonl", {"content": "x", "repo_name": "o/n", "license": "MIT"})
    documents, dropped = collect(tmp_path)
    assert not documents
    assert dropped.examples == {"no repository or no path": ["a.jsonl:1"]}


@pytest.mark.parametrize("field", ["licences", "text_fields", "path_fields"])
def test_a_config_that_would_leave_out_every_file_is_refused(field):
    with pytest.raises(ValueError, match=rf"sources\.github\.{field} is empty"):
        GitHubSource(path="x", **{field: ()})


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs ../shared/corpora/github")
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
