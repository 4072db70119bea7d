"""`llama-jax data inspect`: from a token back to the raw record, and what a build dropped."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.data import shard_writer
from llama_jax.data.shards import SplitReader, read_manifest

NUM_RECORDS = 60


def text_of(number):
    words = ["grüße", "漢字", "the", "river\nbefore", "sunrise", "\x1b[2J"]
    return " ".join(words[(number * 7 + at * at) % len(words)] for at in range(20 + number))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    for part in range(2):
        lines = [
            json.dumps(
                {
                    "text": text_of(number) if number % 10 else text_of(1),
                    "url": f"https://example.org/{number}",
                    "lang": "de",
                    "licence": f"licence {number}",
                }
            )
            for number in range(part, NUM_RECORDS, 2)
        ]
        (raw / f"{part}.jsonl").write_text("\n".join(lines))
    recipe = raw / "recipe.py"
    recipe.write_text(
        "from llama_jax.config import *\n"
        "def config():\n"
        f"    return BuildConfig(name='small', sources=(FilesSource(path={str(raw)!r},"
        "        url_field='url', language_field='lang', metadata_fields=('licence',)),),"
        "        tokenizer=TokenizerTraining(vocab_size=300), held_out_fraction=0.2)\n"
    )
    out = tmp_path_factory.mktemp("built") / "data"
    with pytest.MonkeyPatch.context() as patch:
        # Several windows, so that a token is looked for in the right one.
        patch.setattr(shard_writer, "WINDOW_DOCUMENTS", 7)
        assert main(["data", "build", str(recipe), "--out", str(out), "--workers", "1"]) == 0
    return raw, out


def inspect(built, capsys, *arguments):
    capsys.readouterr()
    assert main(["data", "inspect", str(built[1]), *arguments]) == 0
    return capsys.readouterr().out


def reader_of(built, split):
    folder = built[1] / "files"
    return SplitReader(folder, read_manifest(folder), split)


def check_provenance(shown, raw):
    assert shown["raw"]["file"] == str(raw / shown["id"].partition(":")[0])
    lines = Path(shown["raw"]["file"]).read_bytes().splitlines()
    record = json.loads(lines[int(shown["raw"]["record"]) - 1])
    number = int(record["licence"].split()[1])
    assert shown["url"] == f"https://example.org/{number}"
    assert shown["language"] == "de"
    assert shown["metadata"] == {"licence": f"licence {number}"}
    return record["text"]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_document_leads_to_its_raw_record(built, capsys, split):
    count = len(reader_of(built, split).num_tokens_of)
    assert count > 5
    for number in range(count):
        arguments = ("--split", split, "--document", str(number), "--json")
        shown = json.loads(inspect(built, capsys, *arguments))
        assert check_provenance(shown, built[0]) == shown["text"]


def test_every_token_leads_to_its_place_in_its_document(built, capsys):
    reader = reader_of(built, "train")
    documents = list(reader.read_tokens(range(len(reader.num_tokens_of))))
    tokens = np.concatenate([each for _, each in documents])
    owners = np.concatenate([np.full(len(each), number) for number, each in documents])
    last = len(tokens) - 1
    firsts = np.flatnonzero(np.diff(owners)) + 1
    for number in [0, last, *firsts[5:9], *(firsts[6:8] - 1), *range(1, last, last // 25)]:
        shown = json.loads(inspect(built, capsys, "--token", str(number), "--json"))
        assert shown["token_id"] == tokens[number]
        assert shown["document"] == owners[number]
        assert shown["position"] == number - np.searchsorted(owners, owners[number])
        text = check_provenance(shown, built[0])
        around = shown["before"] + shown["marked"] + shown["after"]
        assert text[shown["character"] - len(shown["before"]) :].startswith(around)
        assert len(shown["before"]) == min(shown["character"], 300)


def test_marked_tokens_side_by_side_are_the_text(built, capsys):
    marked, text = "", ""
    for number in range(int(reader_of(built, "heldout").num_tokens_of[0])):
        arguments = ("--split", "heldout", "--token", str(number), "--json")
        shown = json.loads(inspect(built, capsys, *arguments))
        assert shown["character"] == len(marked)
        marked += shown["marked"]
        text = check_provenance(shown, built[0])
    assert marked == text


@pytest.mark.parametrize(
    "arguments", [("--document", "2"), ("--token", "90"), ("--step", "1"), ("--report",), ()]
)
def test_documents_cannot_steer_the_terminal(built, capsys, arguments):
    shown = inspect(built, capsys, *arguments)
    assert "\x1b" not in shown
    assert ("‹U+001B›[2J" in shown) == (arguments not in ((), ("--report",)))


def test_a_folder_shows_what_each_stage_kept(built, capsys):
    shown = " ".join(inspect(built, capsys).split())
    assert "read 60 100%" in shown
    assert "exact duplicates 54 6 90%" in shown
    assert f"In pictures: {built[1].absolute() / 'report.html'}" in shown


def test_the_report_says_what_was_dropped_and_where_the_page_is(built, capsys):
    page, *rest = inspect(built, capsys, "--report").splitlines()
    assert Path(page).read_text().startswith("<!doctype html>")
    (reason,) = (row for row in rest if "the same text as another document" in row)
    assert re.search(r"left out 6 \(\d+ bytes\): the same text as .*, such as 0\.jsonl:", reason)
    assert rest[-1].endswith(f"{built[1].absolute()}/dropped/*.parquet")
    assert len(list((built[1] / "dropped").glob("*.parquet"))) == 1
    assert json.loads(inspect(built, capsys, "--report", "--json"))["name"] == "small"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--token", "9999999"], "--token=9999999: files train has 0 to "),
        (["--token", "-1"], "--token=-1: files train has 0 to "),
        (["--step", "-3"], "--step=-3 must be 1 or more"),
        (["--step", "0"], "--step=0 must be 1 or more; updates are counted from 1"),
        (["--step", "1", "--batch-size", "0"], "--batch-size=0 must be 1 or more"),
        (["--step", "1", "--seq-len", "0"], "--seq-len=0 must be 1 or more"),
        (["--token", "1", "--report"], "--token and --report are shown one at a time"),
    ],
)
def test_what_is_not_there_is_refused(built, capsys, arguments, complaint):
    assert main(["data", "inspect", str(built[1]), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_documents_of_another_build_are_not_taken_for_these(built, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(built[1], out)
    (file,) = (out / "documents").glob("*.parquet")
    reader = reader_of(built, "train")
    other = tmp_path / "other"
    recipe = tmp_path / "recipe.py"
    recipe.write_text((built[0] / "recipe.py").read_text().replace(str(built[0]), str(other)))
    shutil.copytree(built[0], other)
    (other / "0.jsonl").unlink()
    assert main(["data", "build", str(recipe), "--out", str(tmp_path / "b"), "--workers", "1"]) == 0
    (theirs,) = (tmp_path / "b" / "documents").glob("*.parquet")
    file.write_bytes(theirs.read_bytes())
    count = len(reader.num_tokens_of)
    only_ours = next(n for n in range(count) if reader.document_id(n).startswith("0.jsonl"))
    for number in map(str, (only_ours, count - 1)):
        capsys.readouterr()
        assert main(["data", "inspect", str(out), "--document", number]) == 2
        assert "another one in documents/; build the data anew" in capsys.readouterr().err
    file.unlink()
    assert main(["data", "inspect", str(out), "--document", number]) == 2
    assert "has no documents/files-*.parquet" in capsys.readouterr().err
