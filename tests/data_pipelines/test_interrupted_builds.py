"""A build that was stopped at any moment is not there, and goes on to the same bytes."""

import dataclasses
import fcntl
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.runner import build, executor
from llama_jax.config import (
    DataConfig,
    MinHash,
    ParagraphDedup,
)
from llama_jax.data.dataset import open_dataset
from llama_jax.recipe import to_json
from tests.data_pipelines.small_build import Quiet, contents, read_split


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_byte(config, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(to_json(config))
    command = [sys.executable, "-m", "llama_jax.cli.main", "data", "build", str(recipe)]
    command += ["--workers", "2", "--out"]
    started = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    seconds = time.monotonic() - started
    kills, moments = 0, random.Random(0)
    while kills < 10:
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.1, 1.0) * seconds)
            # It was quicker than the moment chosen: begin anew.
            shutil.rmtree(tmp_path / "killed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("stage", ["collect", "tokenize"])
def test_a_killed_build_can_be_run_again(config, tmp_path, stage):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(config, out, Quiet(die_at=stage))
    assert not (out / "build.json").exists()
    build(config, out, Quiet())
    build(config, tmp_path / "whole", Quiet())
    assert contents(out) == contents(tmp_path / "whole")


def test_a_build_killed_while_its_parts_are_put_in_place_can_be_run_again(config, tmp_path):
    out = tmp_path / "out"
    build(config, out, Quiet())
    before = contents(out)
    (out / "build.json").unlink()
    (out / "tokenizer.model").unlink()
    build(config, out, Quiet())
    assert contents(out) == before


def test_a_build_killed_at_any_rename_cannot_be_opened(config, tmp_path, monkeypatch):
    """Each rename in turn is the last thing that a build does; the next build repairs it."""
    out, data = tmp_path / "out", DataConfig(directory=str(tmp_path / "out"), seq_len=32)
    rename, done = Path.rename, []

    def die_after(count):
        def renamed(self, target):
            if Path(target).parent == out:
                if len(done) >= count:
                    raise KeyboardInterrupt
                done.append(target)
            return rename(self, target)

        return renamed

    for count in range(2):
        done.clear()
        monkeypatch.setattr(Path, "rename", die_after(count))
        with pytest.raises(KeyboardInterrupt):
            build(config, out, Quiet())
        with pytest.raises(ValueError, match="data build"):
            open_dataset(data, vocab_size=330, batch_size=1)
    monkeypatch.setattr(Path, "rename", rename)
    _, before = build(config, out, Quiet())
    assert not before
    open_dataset(data, vocab_size=330, batch_size=1)


def test_a_finished_build_is_recognised(config, tmp_path):
    first, _ = build(config, tmp_path / "out", Quiet())
    reporter = Quiet()
    second, before = build(config, tmp_path / "out", reporter)
    assert before
    assert not reporter.stages
    assert json.dumps(second) == json.dumps(first)


def test_two_builds_into_one_folder_are_refused(config, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(ValueError, match="another build is writing there"):
            build(config, out, Quiet())


def test_a_full_disk_ends_the_build_by_name_and_what_is_done_is_kept(config, small_disk, tmp_path):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3_950_000))
    for workers in (1, 2):
        refused = pytest.raises(
            ValueError, match=r"the disk of .*disk/out/.build.* is full.*make room"
        )
        with refused, executor(workers) as run:
            build(config, small_disk / "out", Quiet(), run=run)
    filler.unlink()
    build(config, small_disk / "out", Quiet())
    build(config, tmp_path / "elsewhere", Quiet())
    assert contents(small_disk / "out") == contents(tmp_path / "elsewhere")


def test_a_kept_work_folder_spares_what_has_not_changed(config, tmp_path):
    """A changed size of shards repeats the tokenizing, and nothing before it."""
    work = tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    kept = {path: path.stat().st_ino for path in work.rglob("done.json")}
    other = dataclasses.replace(config, shard_tokens=1000)
    build(other, tmp_path / "two", Quiet(), work=work)
    changed = {path for path, inode in kept.items() if path.stat().st_ino != inode}
    assert changed
    assert {path.relative_to(work).parts[0] for path in changed} == {"tokenize"}
    build(other, tmp_path / "three", Quiet())
    assert contents(tmp_path / "two") == contents(tmp_path / "three")


def test_a_kept_work_folder_spares_the_search_for_duplicates(config, tmp_path):
    source = dataclasses.replace(
        config.sources[0], dedup=(ParagraphDedup(), MinHash(bands=2, rows=4))
    )
    config, work = dataclasses.replace(config, sources=(source,)), tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    kept = {path: path.stat().st_ino for path in work.rglob("done.json")}
    build(config, tmp_path / "two", Quiet(), work=work)
    assert kept == {path: path.stat().st_ino for path in work.rglob("done.json")}


def test_a_changed_input_is_noticed(config, tmp_path):
    work = tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    (tmp_path / "texts" / "000.txt").write_text("quite another text\n")
    build(config, tmp_path / "two", Quiet(), work=work)
    found = dict(
        read_split(tmp_path / "two", "files", "train")
        + read_split(tmp_path / "two", "files", "heldout")
    )
    assert found["000.txt"] == "quite another text\n"
