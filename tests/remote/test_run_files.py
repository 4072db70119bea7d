"""One process holds a run in a bucket, and its small files are there when a checkpoint counts."""

import json
import os
import subprocess

import pytest

from llama_jax.remote.holder import InUseError, describe_self
from llama_jax.remote.lease import Lease
from llama_jax.remote.mirror import LEASE, Mirror, mirror_folder
from llama_jax.remote.objects import Objects, StorageError
from llama_jax.remote.run_files import RunFiles, read_file, read_only_copy
from tests.remote.stores import STORES, open_store


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    with open_store(request.param, tmp_path) as store:
        yield store.url


def held_by(url, **holder):
    """Leaves a lease as another process would."""
    content = {"pid": 1, "host": "elsewhere", "since": "then", "beats": 1, "token": "theirs"}
    Objects(url).write(LEASE, json.dumps(content | holder).encode())


def nobody() -> int:
    """A number that no process has."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_second_process_of_a_machine_is_refused_and_told_who_holds_the_run(url):
    held_by(url, **describe_self() | {"pid": os.getppid()})
    with pytest.raises(ValueError, match=rf"run_dir={url} is in use by pid {os.getppid()} on "):
        RunFiles(url, holds=True)


def test_a_holder_elsewhere_that_beats_is_waited_for(url, monkeypatch, capsys):
    beats, clock = iter(range(2, 100)), iter(range(0, 1000, 10))
    held_by(url, beats=1)
    monkeypatch.setattr("time.sleep", lambda _: held_by(url, beats=next(beats)))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with pytest.raises(InUseError, match=r"by pid 1 on elsewhere since then, which goes on\."):
        Lease(Objects(url))
    assert capsys.readouterr().err.count("pid 1 on elsewhere since then; waiting for it") == 1
    monkeypatch.setattr("time.sleep", lambda _: Objects(url).delete([LEASE]))  # it saved, and ended
    Lease(Objects(url)).release()


def test_a_holder_that_is_silent_for_long_is_taken_over_and_finds_out(url):
    theirs = Lease(Objects(url))
    content = json.loads(Objects(url).read(LEASE))
    held_by(url, token=content["token"], host="elsewhere")
    Lease(Objects(url), silence_seconds=0)
    with pytest.raises(StorageError, match=rf"{url} was taken by pid {os.getpid()} on "):
        theirs.renew()


@pytest.mark.parametrize("pid", [nobody, os.getpid])
def test_a_holder_of_this_machine_that_is_gone_is_taken_over_at_once(url, monkeypatch, pid):
    held_by(url, **describe_self() | {"pid": pid()})
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    lease = Lease(Objects(url))
    lease.renew()
    lease.release()
    assert Objects(url).read(LEASE) is None


def test_files_come_back_on_another_machine(url, tmp_path):
    here, there = Mirror(url, tmp_path / "here"), Mirror(url, tmp_path / "there")
    here.pull()
    for name in ("config.json", "metrics.jsonl", "stream/place.json"):
        (here.folder / name).parent.mkdir(exist_ok=True)
        (here.folder / name).write_text(name)
    here.push()
    Objects(url).write("checkpoints/5/manifest.json", b"{}")
    there.pull()
    assert (there.folder / "stream/place.json").read_text() == "stream/place.json"
    assert (there.folder / "checkpoints").read_text() == f"{url}/checkpoints\n"
    assert Objects(url).names(skip="checkpoints/") == [
        "config.json",
        "metrics.jsonl",
        "stream/place.json",
    ]


def test_what_a_kill_left_here_is_kept_only_if_it_goes_on_where_the_bucket_ends(url, tmp_path):
    mirror = Mirror(url, tmp_path / "here")
    Objects(url).write("config.json", b"{}")
    Objects(url).write("metrics.jsonl", b"1\n2\n")
    Objects(url).write("goodput.jsonl", b"1\n2\n")
    mirror.folder.mkdir()
    (mirror.folder / "metrics.jsonl").write_text("1\n2\n3\n")
    (mirror.folder / "goodput.jsonl").write_text("1\n4\n5\n")
    mirror.pull()
    assert (mirror.folder / "metrics.jsonl").read_text() == "1\n2\n3\n"
    assert (mirror.folder / "goodput.jsonl").read_text() == "1\n2\n"
    mirror.push()
    assert Objects(url).read("metrics.jsonl") == b"1\n2\n3\n"


def test_files_of_a_run_that_the_bucket_does_not_know_are_cleared(url, tmp_path):
    mirror = Mirror(url, tmp_path / "here")
    mirror.folder.mkdir()
    (mirror.folder / "origin.json").write_text("of another run at this place")
    mirror.pull()
    assert [path.name for path in mirror.folder.iterdir()] == ["checkpoints"]


def test_only_what_changed_is_stored_again(url, tmp_path, monkeypatch):
    mirror = Mirror(url, tmp_path / "here")
    mirror.pull()
    (mirror.folder / "config.json").write_text("{}")
    (mirror.folder / "metrics.jsonl").write_text("1\n")
    mirror.push()
    Objects(url).write("config.json", b"as it was")
    with (mirror.folder / "metrics.jsonl").open("a") as file:
        file.write("2\n")
    mirror.push()
    assert Objects(url).read("config.json") == b"as it was"
    assert Objects(url).read("metrics.jsonl") == b"1\n2\n"


def test_the_last_lines_are_stored_when_a_run_ends_and_readers_get_them(url, tmp_path):
    files = RunFiles(url, holds=True)
    (files.folder / "config.json").write_text("{}")
    (files.folder / "metrics.jsonl").write_text("1\n")
    other = RunFiles(url, holds=False)  # of the same run
    assert other.folder != files.folder
    (files.folder / "taint.json").write_text("[]")
    files.push()
    other.refresh()
    assert read_file(url, "taint.json") == b"[]" and read_file(url, "none.json") is None
    assert (other.folder / "taint.json").read_text() == "[]"
    (other.folder / "incidents").mkdir()
    (other.folder / "incidents/process_1.jsonl").write_text("it hung")
    other.store([other.folder / "incidents/process_1.jsonl"])
    assert Objects(url).read("incidents/process_1.jsonl") == b"it hung"
    other.close()
    files.close()
    assert Objects(url).read(LEASE) is None
    assert (read_only_copy(url) / "metrics.jsonl").read_text() == "1\n"
    assert read_only_copy(tmp_path) == tmp_path
    assert mirror_folder(url, "run") == files.folder
