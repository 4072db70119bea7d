"""Whoever runs the tasks of a build, and how many of them: the bytes are the same."""

import dataclasses
import json
import sys

import pytest

from data_pipelines.engine import in_this_process
from data_pipelines.runner import build, executor
from llama_jax.config import (
    MinHash,
    ParagraphDedup,
)
from tests.data_pipelines.small_build import WORDS, Quiet, contents, read_split


def test_the_bytes_do_not_depend_on_the_number_of_workers(config, tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 5000)
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 5000)
    config = dataclasses.replace(
        config, sources=(dataclasses.replace(config.sources[0], max_bytes=20_000),)
    )
    for workers in (1, 2):
        with executor(workers) as run:
            build(config, tmp_path / str(workers), Quiet(), run=run)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one == two
    assert sum("documents/" in name for name in one) > 3
    assert sum("train.array_record" in name for name in one) > 3


def test_near_duplicates_and_repeated_paragraphs_are_removed_for_any_number_of_workers(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 20_000)
    folder = tmp_path / "texts"
    long = " ".join(f"{word}{number}" for number in range(40) for word in WORDS.split()[:8])
    (folder / "long.txt").write_text(long + " and so it ended\n")
    (folder / "alike.txt").write_text(long + " and so\n")
    footer = "This page was made by someone who puts this line under every page."
    for number in range(3):
        words = " ".join(f"{word}{'xyz'[number]}" for word in WORDS.split())
        (folder / f"footer{number}.txt").write_text(f"{words}\n{footer}\n")
    source = dataclasses.replace(
        config.sources[0], dedup=(MinHash(bands=5, rows=4), ParagraphDedup(min_characters=20))
    )
    config = dataclasses.replace(config, sources=(source,))
    build(config, tmp_path / "1", Quiet())
    with executor(2) as run:
        build(config, tmp_path / "2", Quiet(), run=run)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    found = dict(
        read_split(tmp_path / "1", "files", "train")
        + read_split(tmp_path / "1", "files", "heldout")
    )
    assert "long.txt" in found
    assert "alike.txt" not in found
    assert sum(footer in text for text in found.values()) == 1
    assert all(f"footer{number}.txt" in found for number in range(3))
    files = json.loads((tmp_path / "1" / "report.json").read_text())["sources"]["files"]
    assert files["dropped"]["near duplicate"]["count"] == sum(
        (documents - 1) * groups for documents, groups in files["duplicate_groups"]
    )
    assert [p["name"] for p in files["passages"]] == [
        "read",
        "exact duplicates",
        "near duplicates",
        "paragraphs",
    ]


def test_workers_that_died_are_told_and_counted(config, tmp_path):
    def losing_some(tasks, work, listener):
        if tasks and tasks[0][0].name.startswith("collect"):
            listener.died(["collect/files/00000", "collect/files/00001"])
        in_this_process(tasks, work, listener)

    reporter = Quiet()
    summary, _ = build(config, tmp_path / "1", reporter, run=losing_some)
    report = json.loads((tmp_path / "1" / "report.json").read_text())
    deaths = [["collect/files/00000", "collect/files/00001"]]
    assert reporter.deaths == summary["worker_deaths"] == report["worker_deaths"] == deaths
    page = (tmp_path / "1" / "report.html").read_text()
    assert "Workers died: 1" in page
    build(config, tmp_path / "2", Quiet())
    assert "Workers died" not in (tmp_path / "2" / "report.html").read_text()
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert {name for name in one if one[name] != two[name]} == {
        "build.json",
        "report.json",
        "report.html",
    }


@pytest.mark.slow
def test_beam_gives_the_same_bytes(config, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'llama-jax[beam]'")
    local = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    build(config, tmp_path / "1", Quiet())
    with executor(1, "beam", local) as run:
        build(config, tmp_path / "2", Quiet(), run=run)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_beam_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    refused = pytest.raises(ValueError, match=r"--runner=beam needs Apache Beam: pip install")
    with refused, executor(1, "beam"):
        pass
