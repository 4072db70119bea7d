"""Sources give every document once under a lasting name, and account for all the rest."""

import dataclasses
import gzip
import json
import random
import sysconfig
import tracemalloc

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from data_pipelines.document import Dropped, RawFile, WatchedFile
from data_pipelines.sources import files, open_source, read_all, records
from llama_jax.config import (
    BuildConfig,
    FilesSource,
    PythonEnvironmentSource,
    TokenizerFile,
)
from llama_jax.recipe import load_recipe


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


PAGE = {"text": "a page", "url": "https://x.org/a"}
FINEWEB = PAGE | {
    "id": "<urn:uuid:1>",
    "dump": "CC-MAIN-2024-10",
    "date": "2024-02-20T00:00:00Z",
    "file_path": "s3://commoncrawl/a.warc.gz",
    "language": "en",
    "language_score": 0.9,
    "token_count": 3,
}
DOLMA = {
    "id": "1",
    "text": "a page",
    "source": "common-crawl",
    "added": "2023",
    "created": "2020",
    "metadata": {"url": "https://x.org/a", "length": 6},
}
C4 = PAGE | {"timestamp": "2019-04-25T12:57:54Z"}


def zstandard_lines(*records):
    return zstandard.ZstdCompressor().compress(json_lines(*records))


@pytest.mark.parametrize(
    ("recipe", "name", "record", "kept"),
    [
        ("fineweb", "000.parquet", FINEWEB, {"id", "dump", "date", "file_path"}),
        ("c4", "c4-train.00000-of-01024.json.gz", C4, {"timestamp"}),
        ("dolma", "cc-0000.json.gz", DOLMA, {"id", "source", "created"}),
        ("dolma", "cc-0000.jsonl.zst", DOLMA, {"id", "source", "created"}),
    ],
)
def test_published_corpora_are_read_with_their_addresses(tmp_path, recipe, name, record, kept):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist([record]), path)
    else:
        pack = gzip.compress if path.suffix == ".gz" else lambda lines: zstandard_lines(record)
        path.write_bytes(pack(json_lines(record)))
    config = dataclasses.replace(load_recipe(recipe, BuildConfig).sources[0], path=str(tmp_path))
    dropped = Dropped()
    (document,) = read_all(open_source(config), dropped)
    assert document.id == f"{name}:1"
    assert document.text == "a page"
    assert document.url == "https://x.org/a"
    assert document.language == ("en" if recipe == "fineweb" else "")
    assert dict(document.metadata) == {key: record[key] for key in kept}
    assert not dropped.counts


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_dots_lead_to_nested_fields(tmp_path, suffix):
    rows = [{"meta": {"body": "a", "tags": ["x", "y"], "n": 3}}, {"meta": None}]
    if suffix == "jsonl":
        (tmp_path / "a.jsonl").write_bytes(json_lines(*rows))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = FilesSource(
        path=str(tmp_path),
        text_field="meta.body",
        url_field="meta.none",
        metadata_fields=("meta.tags", "meta.n"),
    )
    dropped = Dropped()
    (document,) = read_all(open_source(source), dropped)
    assert document[1:] == ("a", "", "", (("meta.tags", "x, y"), ("meta.n", "3")))
    assert dropped.examples == {"'meta.body' is no text": [f"a.{suffix}:2"]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_line_without_end_is_skipped_and_counted(tmp_path, monkeypatch, name):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    text = json_lines({"text": "a"}, {"text": "b" * 5000}, {"text": "c"})
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path = tmp_path / name
    path.write_bytes(pack.get(path.suffix, bytes)(text))
    documents, dropped = collect(tmp_path)
    assert documents == {f"{name}:1": "a", f"{name}:3": "c"}
    assert dropped.examples == {"longer than 1,000 bytes": [f"{name}:2"]}


def test_a_line_of_just_the_longest_length_is_read(tmp_path, monkeypatch):
    line = json_lines({"text": "a"})
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", len(line))
    (tmp_path / "a.jsonl").write_bytes(line + line.strip() + b" \n" + line)
    documents, dropped = collect(tmp_path)
    assert list(documents) == ["a.jsonl:1", "a.jsonl:3"]
    assert dropped.examples == {f"longer than {len(line)} bytes": ["a.jsonl:2"]}


def test_long_texts_of_other_formats_are_counted(tmp_path, monkeypatch):
    for module in (records, files):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", 1000)
    # The 1,000th byte is in the middle of a letter.
    (tmp_path / "a.txt").write_text("a" + "é" * 501)
    pyarrow.parquet.write_table(pa.table({"text": ["a" * 1001, "b"]}), tmp_path / "b.parquet")
    documents, dropped = collect(tmp_path)
    assert documents == {"b.parquet:2": "b"}
    assert dropped.examples == {"longer than 1,000 bytes": ["a.txt", "b.parquet:1"]}


def test_no_more_of_a_text_file_is_read_than_is_taken(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(256 << 20)
    tracemalloc.start()
    _, dropped = collect(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dropped.examples == {"longer than 16,777,216 bytes": ["a.txt"]}
    assert peak < 64 << 20


def test_a_bomb_of_zstandard_is_unpacked_piece_by_piece(tmp_path):
    size = 256 << 20
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(bytes(size)))
    tracemalloc.start()
    documents, dropped = collect(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not documents
    assert dropped.examples == {"longer than 16,777,216 bytes": ["a.jsonl.zst:1"]}
    assert peak < size / 2


def test_deep_nesting_does_not_exhaust_the_stack(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"[" * 100_000 + b"\n" + json_lines({"text": "a"}))
    documents, dropped = collect(tmp_path)
    assert documents == {"a.jsonl:2": "a"}
    assert dropped.examples == {"no valid JSON": ["a.jsonl:1"]}


def test_a_row_that_is_not_utf_8_is_dropped_alone(tmp_path):
    good, bad = pa.array([b"a", b"b"]), pa.array([b"a", b"\xff"])
    columns = {
        name: pa.Array.from_buffers(pa.string(), 2, array.buffers())
        for name, array in (("text", bad), ("url", good))
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    documents, dropped = collect(tmp_path)
    assert documents == {"a.parquet:1": "a"}
    assert dropped.examples == {"not UTF-8": ["a.parquet:2"]}


def test_a_text_that_fills_a_table_by_repetition_is_read_row_by_row(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), ["a" * (1 << 20)])
    # Stored without the type, so that nothing but the pages says that there is a dictionary.
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": text}), path, store_schema=False)
    assert path.stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    dropped = Dropped()
    source = open_source(FilesSource(path=str(tmp_path)))
    assert sum(1 for _ in read_all(source, dropped)) == 500
    assert pa.default_memory_pool().max_memory() - before < 100 << 20


def test_a_row_group_of_any_size_is_read_in_batches(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"{n:16384}" for n in range(6000)]
    pyarrow.parquet.write_table(pa.table({"text": texts}), path, compression="none")
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 1
    assert path.stat().st_size > 90 << 20
    before = pa.total_allocated_bytes()
    documents = read_all(open_source(FilesSource(path=str(path))), Dropped())
    tracemalloc.start()
    assert all(pa.total_allocated_bytes() - before < 64 << 20 for _ in documents)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


def test_flipped_bits_of_a_parquet_file_never_raise(tmp_path):
    path = tmp_path / "a.parquet"
    rows = {"text": [f"text {n} " * 9 for n in range(200)], "meta": [{"n": n} for n in range(200)]}
    pyarrow.parquet.write_table(pa.table(rows), path, compression="none")
    whole = path.read_bytes()
    generator = random.Random(0)
    damaged = 0
    for _ in range(150):
        data = bytearray(whole)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        documents, dropped = collect(tmp_path, metadata_fields=("meta.n",))
        damaged += len(documents) < 200
        assert len(documents) == 200 or dropped.counts
    assert damaged > 10


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


def test_a_watched_file_reads_the_same_and_tells_each_byte_once(tmp_path):
    data = random.Random(0).randbytes(700_000)
    (tmp_path / "a").write_bytes(data)
    told = []
    plain = RawFile("a", str(tmp_path / "a"), len(data))
    with WatchedFile.of(plain, told.append).open() as file:
        assert file.read(300_000) == data[:300_000]
        assert 300_000 <= sum(told) < len(data)
        file.seek(100)
        assert file.read() == data[100:]
    assert sum(told) == len(data)
    assert len(told) > 3
