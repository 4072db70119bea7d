"""`llama-jax data sites` lists the sites whose documents have much personal data."""

import json

import pytest

from llama_jax.cli.main import main


@pytest.fixture
def pages(tmp_path):
    records = [
        {"text": text, "url": f"https://www.{host}/{number}"}
        for number in range(3)
        for host, text in (("forum.org", "ann@acme.org, 415-555-2671"), ("news.org", "nothing"))
    ]
    for name, some in (("a.jsonl", records[:3]), ("b.jsonl", records[3:])):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in some))
    return tmp_path


def test_the_sites_above_the_rate_are_written_for_any_number_of_workers(pages, monkeypatch, capsys):
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 10)
    for workers in ("1", "2"):
        out = pages / "out" / f"{workers}.txt"
        command = ["data", "sites", "demo", "--input", str(pages), "--out", str(out)]
        assert main([*command, "--min-documents", "3", "--workers", workers, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"out": str(out), "sites": ["forum.org"]}
        assert out.read_text() == "forum.org\n"


def test_sources_without_the_filter_do_not_count_for_the_sites_of_others(pages):
    recipe, out = pages / "recipe.py", pages / "out.txt"
    recipe.write_text(
        "from llama_jax.config import *\n"
        "def config():\n"
        "    return BuildConfig(\n"
        "        name='x', tokenizer=TokenizerFile(), mixture=(('b', 1.0),), sources=(\n"
        "        FilesSource(name='a', path='a.jsonl', filters=(PersonalData(),)),\n"
        "        FilesSource(name='b', path='b.jsonl')))\n"
    )
    command = ["data", "sites", str(recipe), "--input", str(pages), "--out", str(out)]
    assert main([*command, "--min-documents", "3"]) == 0
    assert out.read_text() == ""
    assert main([*command, "--min-documents", "2"]) == 0
    assert out.read_text() == "forum.org\n"


def test_documents_without_addresses_are_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("ann@acme.org\n")
    command = ["data", "sites", "demo", "--input", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "no document has an address (url)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
