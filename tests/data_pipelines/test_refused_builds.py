"""What cannot become a dataset is refused by name, before anything is lost."""

import dataclasses
import json
import shutil

import pytest

from data_pipelines.runner import build
from llama_jax.config import (
    DataConfig,
    FilesSource,
    TokenizerFile,
)
from llama_jax.data.dataset import open_dataset
from tests.data_pipelines.small_build import Quiet


def test_more_damage_than_allowed_ends_the_build_and_names_it(config, tmp_path):
    for number in range(2):
        (tmp_path / "texts" / f"bad{number}.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(
        ValueError, match=r"--max-bad-records=1: there are 2 damaged .* in files, such as bad0"
    ):
        build(config, tmp_path / "out", Quiet(), max_bad_records=1)
    summary, _ = build(config, tmp_path / "out", Quiet(), max_bad_records=2)
    assert sum(summary["sources"]["files"]["dropped"].values()) == 2


def test_the_first_piece_of_damage_too_many_ends_a_build_at_once(config, tmp_path, monkeypatch):
    """Also where it was found by a build that was stopped, and others found none yet."""
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 500)
    monkeypatch.setattr("data_pipelines.plan._MIN_PART_BYTES", 500)
    # Parts with more to read come first.
    (tmp_path / "texts" / "bad.jsonl").write_text("{" * 10_000)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"--max-bad-records=0: there are 1 damaged"):
            build(config, tmp_path / "out", Quiet(), max_bad_records=0)
        (done,) = (tmp_path / "out").rglob("done.json")
        assert json.loads(done.read_text())["result"]["dropped"]["num_bad"] == 1
    build(config, tmp_path / "out", Quiet(), max_bad_records=1)


def test_another_config_in_the_same_folder_is_refused_field_by_field(config, tmp_path):
    build(config, tmp_path / "out", Quiet())
    other = dataclasses.replace(config, held_out_fraction=0.1, shard_tokens=999)
    with pytest.raises(
        ValueError, match=r"held_out_fraction: 0\.2 -> 0\.1; shard_tokens: 3000 -> 999\. Build into"
    ):
        build(other, tmp_path / "out", Quiet())


def test_a_folder_with_other_files_is_refused_and_left_alone(config, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty: it has thesis\.txt"):
        build(config, out, Quiet())
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_build_does_not_write_where_it_reads(config, tmp_path, option):
    folders = {"--out": tmp_path / "out", "--work": tmp_path / "work"}
    folders[option] = tmp_path / "texts" / "more" / "folders"
    with pytest.raises(
        ValueError, match=rf"{option} .*folders is inside sources\.files\.path=.*text"
    ):
        build(config, folders["--out"], Quiet(), work=folders["--work"])
    folders[option] = tmp_path / "file"
    folders[option].write_text("")
    with pytest.raises(ValueError, match=rf"{option} .*file is a file; give a folder"):
        build(config, folders["--out"], Quiet(), work=folders["--work"])


def test_a_tokenizer_that_cannot_be_read_is_refused_before_anything_is_collected(config, tmp_path):
    (tmp_path / "bad.model").write_bytes(b"no model")
    for name, complaint in {
        "none.model": "there is no such file",
        "bad.model": "is no Sentence",
    }.items():
        wrong = dataclasses.replace(config, tokenizer=TokenizerFile(path=str(tmp_path / name)))
        reporter = Quiet()
        with pytest.raises(ValueError, match=complaint):
            build(wrong, tmp_path / "out", reporter)
        assert not reporter.stages


def test_a_corpus_without_documents_is_refused_with_the_reasons(config, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{cut\n" * 3 + "[]\n")
    empty = dataclasses.replace(
        config,
        sources=(FilesSource(path=str(path)),),
    )
    with pytest.raises(
        ValueError, match=r"sources\.files is empty: .*left out: 3 no valid JSON, 1 no field 'text'"
    ):
        build(empty, tmp_path / "out", Quiet())


def test_a_source_whose_folder_is_gone_is_refused_by_name(config, tmp_path):
    out = tmp_path / "out"
    build(config, out, Quiet())
    shutil.copytree(out / "files", out / "other")
    shutil.rmtree(out / "files")
    with pytest.raises(ValueError, match=r"out/files lacks source\.json"):
        open_dataset(DataConfig(directory=str(out), seq_len=32), vocab_size=330, batch_size=1)
