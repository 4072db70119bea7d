"""Everything that a build leaves out is a row that says why; rows and the report's counts agree."""

import dataclasses
import json

import duckdb
import pyarrow.parquet
import pytest

from data_pipelines import dropped_rows
from data_pipelines.runner import build, executor
from llama_jax.config import FilesSource, GopherQuality, MinHash, ParagraphDedup
from tests.data_pipelines.small_build import Quiet, contents, texts

LONG = " ".join(f"word{number}" for number in range(300))
FOOTER = "This page was made by someone who puts this line under every page."


@pytest.fixture
def everything(config, tmp_path):
    """A recipe of which every step leaves something out."""
    folder = tmp_path / "texts"
    lines = [{"text": text} for text in texts(20, salt=1)] + [{"text": 3}, {"text": "too short"}]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    (folder / "damaged.jsonl.gz").write_bytes(b"no gzip")
    (folder / "copy.txt").write_text((folder / "007.txt").read_text())
    (folder / "long.txt").write_text(LONG)
    (folder / "alike.txt").write_text(LONG + " and so")
    for number in range(2):
        (folder / f"footer{number}.txt").write_text(
            f"a page of number {'xyz'[number] * 9}\n{FOOTER}"
        )
    rules = GopherQuality(min_words=5, min_stop_words=0)
    source = dataclasses.replace(
        config.sources[0],
        filters=(rules,),
        dedup=(MinHash(bands=5, rows=4), ParagraphDedup(min_characters=60)),
        max_bytes=2000,
    )
    more = FilesSource(name="more", path=str(folder))
    return dataclasses.replace(config, sources=(source, more))


def rows_of(out, source):
    files = sorted((out / "dropped").glob(f"{source}-*.parquet"))
    return [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


def test_rows_say_why_and_agree_with_the_report(everything, tmp_path):
    out = tmp_path / "out"
    build(everything, out, Quiet())
    report = json.loads((out / "report.json").read_text())
    for source in ("files", "more"):
        counts, sizes = {}, {}
        for row in rows_of(out, source):
            counts[row["rule"]] = counts.get(row["rule"], 0) + 1
            sizes[row["rule"]] = sizes.get(row["rule"], 0) + row["text_bytes"]
        told = report["sources"][source]["dropped"]
        assert counts == {rule: each["count"] for rule, each in told.items()}
        assert sizes == {rule: each["text_bytes"] for rule, each in told.items()}
    found = {(row["id"], row["rule"]): row for row in rows_of(out, "files")}
    assert found["lines.jsonl:22", "gopher_quality: words"] == {
        "id": "lines.jsonl:22",
        "rule": "gopher_quality: words",
        "value": "2",
        "allowed": "at least 5",
        "text_bytes": 9,
    }
    assert found["lines.jsonl:23", "no valid JSON"]["text_bytes"] == 0
    assert {rule for _, rule in found} >= {
        "beyond max_bytes",
        "near duplicate",
        "paragraphs: characters left",
        "the same text as another document",
        "'text' is no text",
        "file damaged, the rest of it is lost (BadGzipFile)",
    }
    steps = {path.name.split("-")[1] for path in (out / "dropped").glob("files-*")}
    assert steps == {"collect", "gather", "deduplicate", "cut", "limit"}


def test_rows_are_the_same_for_any_number_of_workers(everything, tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.plan._MIN_PART_BYTES", 5000)
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 5000)
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 20_000)
    for workers in (1, 2):
        with executor(workers) as run:
            build(everything, tmp_path / str(workers), Quiet(), run=run)
    one, two = contents(tmp_path / "1" / "dropped"), contents(tmp_path / "2" / "dropped")
    assert one == two
    assert len(one) > 6


def test_rows_answer_questions(everything, tmp_path):
    """As the guide asks them."""
    build(everything, tmp_path / "out", Quiet())
    rows = f"'{tmp_path}/out/dropped/more-*.parquet'"
    assert duckdb.sql(
        "SELECT rule, count(*), avg(try_cast(value AS DOUBLE)) "
        f"FROM {rows} GROUP BY rule ORDER BY rule LIMIT 1"
    ).fetchall() == [("'text' is no text", 1, None)]


def test_many_rows_are_held_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(dropped_rows, "_ROWS", 100)
    monkeypatch.setattr(dropped_rows, "_CHARACTERS", 50_000)
    with dropped_rows.account(tmp_path) as dropped:
        for number in range(1000):
            dropped.add("rule", f"{number:06d}", "é", value=str(number), allowed="none")
        for number in range(20):
            dropped.add("long", f"{number:010000d}")
    with pyarrow.parquet.ParquetFile(tmp_path / "dropped.parquet") as file:
        assert file.num_row_groups == 14
        rows = file.read().to_pylist()
    assert [row["value"] for row in rows[:1000]] == [*map(str, range(1000))]
    assert {row["text_bytes"] for row in rows[:1000]} == {2}
    assert len(rows) == 1020


def test_where_nothing_is_left_out_there_is_no_file(tmp_path):
    with dropped_rows.account(tmp_path):
        pass
    assert not [*tmp_path.iterdir()]
