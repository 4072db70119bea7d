"""Sources give every document once under a lasting name, and account for all the rest."""

import gzip
import json
import sysconfig

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.config import (
    BuildConfig,
    FilesSource,
    PythonEnvironmentSource,
    TokenizerFile,
)


def collect(path, **options):
    dropped = Dropped()
    source = open_source(FilesSource(path=str(path), **options))
    return {d.id: d.text for d in read_all(source, dropped)}, dropped


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("text é")
    (tmp_path / "a.md").write_text("# title")
    (tmp_path / "c.jsonl").write_bytes(json_lines({"text": "line 1"}, {"text": "line 2"}))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(json_lines({"text": "gzip"})))
    (tmp_path / "e.jsonl.zst").write_bytes(
        zstandard.ZstdCompressor().compress(json_lines({"text": "zstandard"}))
    )
    table = pa.table({"text": ["row 1", "row 2"], "other": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
    (tmp_path / "ignored.png").write_bytes(b"\x89PNG")
    return tmp_path


def test_every_format_is_read_under_a_path_and_record(folder):
    documents, dropped = collect(folder)
    assert documents == {
        "a.md": "# title",
        "c.jsonl:1": "line 1",
        "c.jsonl:2": "line 2",
        "d.jsonl.gz:1": "gzip",
        "e.jsonl.zst:1": "zstandard",
        "f.parquet:1": "row 1",
        "f.parquet:2": "row 2",
        "sub/b.txt": "text é",
    }
    assert not dropped.counts


def test_a_single_file_is_a_source(folder):
    assert list(collect(folder / "c.jsonl")[0]) == ["c.jsonl:1", "c.jsonl:2"]


def test_another_field_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines({"body": "here", "text": "not here"}))
    assert collect(tmp_path, text_field="body")[0] == {"a.jsonl:1": "here"}


def test_bad_records_are_counted_and_named(tmp_path):
    lines = [b'{"text": "good"}', b"{cut", b'{"text": 3}', b'{"body": ""}', b'{"text": " "}']
    lines += [b"", b'{"text": "\\ud800"}', b"[1]", b"\xff\xfe", b'{"text": "good too"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe broken")
    pyarrow.parquet.write_table(pa.table({"text": ["x", None]}), tmp_path / "c.parquet")
    pyarrow.parquet.write_table(pa.table({"body": ["x"]}), tmp_path / "d.parquet")
    documents, dropped = collect(tmp_path)
    assert set(documents.values()) == {"good", "good too", "x"}
    assert dropped.examples == {
        "no valid JSON": ["a.jsonl:2", "a.jsonl:9"],
        "'text' is no text": ["a.jsonl:3", "c.parquet:2"],
        "no field 'text'": ["a.jsonl:4", "a.jsonl:8"],
        "no text": ["a.jsonl:5"],
        "lone surrogates": ["a.jsonl:7"],
        "file damaged, the rest of it is lost (UnicodeDecodeError)": ["b.txt"],
        "no column 'text'": ["d.parquet"],
    }
    assert dropped.counts["no valid JSON"] == 2


@pytest.mark.parametrize("name", ["d.jsonl.gz", "e.jsonl.zst", "f.parquet"])
def test_a_file_cut_short_is_named_and_the_others_are_read(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-6])
    documents, dropped = collect(folder)
    assert documents["a.md"] == "# title"
    assert documents["sub/b.txt"] == "text é"
    ((reason, names),) = dropped.examples.items()
    assert reason.startswith("file damaged")
    assert names == [name]


def test_all_frames_of_a_zstandard_file_are_read_whatever_their_window(tmp_path):
    wide = zstandard.ZstdCompressionParameters(window_log=30)
    frames = [
        zstandard.ZstdCompressor(compression_params=wide).compress(json_lines({"text": "é" * 9})),
        zstandard.ZstdCompressor().compress(json_lines({"text": "second"}) + b'{"text": "no'),
        zstandard.ZstdCompressor().compress(b' end"}'),
    ]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    documents, dropped = collect(tmp_path)
    assert list(documents.values()) == ["é" * 9, "second", "no end"]
    assert not dropped.counts


def test_a_folder_without_any_text_says_what_was_looked_for(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sources\.files\.path=.* holds no \.txt, \.md, \.jsonl"):
        collect(tmp_path)


@pytest.mark.parametrize("path", ["", "/no/such/folder"])
def test_a_missing_folder_is_refused(path):
    with pytest.raises(ValueError, match=rf"sources\.files\.path='{path}': there is no such file"):
        collect(path)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A standard library that contains site-packages, as a base installation's does."""
    stdlib = tmp_path / "lib" / "python3"
    packages = stdlib / "site-packages"
    package = packages / "package"
    for path in (stdlib / "asyncio", package / "__pycache__", packages / "package.dist-info"):
        path.mkdir(parents=True)
    body = "def function(argument):\n    return argument\n" * 10
    (stdlib / "asyncio" / "events.py").write_text(body)
    (package / "module.py").write_text("# module\n" + body)
    (package / "notes.rst").write_text("Notes\n" * 50)
    (packages / "package.dist-info" / "METADATA").write_text("Name: package\n" * 30)
    (package / "__pycache__" / "module.txt").write_text(body)
    (package / "tiny.py").write_text("x = 1\n")
    (package / "huge.py").write_text("x = 1\n" * 200_000)
    (package / "latin.py").write_bytes(b"# \xe9\n" * 100)
    (package / "minified.py").write_text("x=1;" * 200)
    (package / "parser.py").write_text("# This file is automatically generated.\n" + body)
    (package / "data.bin").write_bytes(b"\0" * 1000)
    paths = {"stdlib": str(stdlib), "purelib": str(packages), "platlib": str(packages)}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    return stdlib


def test_the_python_environment_is_named_below_its_roots(environment):
    dropped = Dropped()
    documents = {d.id: d.text for d in read_all(open_source(PythonEnvironmentSource()), dropped)}
    assert sorted(documents) == [
        "site-packages/package.dist-info/METADATA",
        "site-packages/package/module.py",
        "site-packages/package/notes.rst",
        "stdlib/asyncio/events.py",
    ]
    assert dropped.examples == {
        "shorter than 200 bytes": ["site-packages/package/tiny.py"],
        "longer than 1,000,000 bytes": ["site-packages/package/huge.py"],
        "not UTF-8": ["site-packages/package/latin.py"],
        "lines of more than 160 characters on average": ["site-packages/package/minified.py"],
        "says that it is generated": ["site-packages/package/parser.py"],
    }


def test_an_environment_without_sources_is_refused(environment, monkeypatch, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(empty))
    with pytest.raises(ValueError, match=rf"sources\.python is empty: no \.md.* below {empty}"):
        list(read_all(open_source(PythonEnvironmentSource()), Dropped()))


@pytest.mark.parametrize("name", ["c4-en", "a.b", "../up", "9a", "C4", ""])
def test_names_that_tensorflow_datasets_would_not_find_are_refused(name):
    with pytest.raises(ValueError, match=r"must be lower-case letters, digits and underscores"):
        BuildConfig(
            name="x", sources=(FilesSource(name=name, path="x"),), tokenizer=TokenizerFile(path="x")
        )
