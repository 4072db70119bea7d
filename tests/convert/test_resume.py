"""A conversion that was stopped goes on: what was whole is kept, and the result is the same."""

import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

from llama_jax.cli.main import main
from llama_jax.convert import hugging_face, hugging_face_import
from llama_jax.convert.result_folder import result_folder
from tests.convert.hf_folder import TINY, shrunk, write_hf

REQUEST = {"dtype": "float32"}
STOP_AFTER = 12


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def contents(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stopped_after(function, count):
    """`function`, which is interrupted when it is called once more than that."""
    calls = itertools.count()

    def call(*arguments, **options):
        if next(calls) >= count:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call


def counted(function, names):
    """`function`, whose calls leave the name of their tensor in a list."""

    def call(tensor, *arguments, **options):
        names.append(tensor.name)
        return function(tensor, *arguments, **options)

    return call


@pytest.fixture
def source(tmp_path):
    write_hf(tmp_path / "hf", TINY, "bfloat16", num_files=2)
    return tmp_path / "hf"


@pytest.fixture
def run_dir(source, tmp_path):
    assert convert("from-hf", source, tmp_path / "run") == 0
    return tmp_path / "run"


EXPORT = ["--without-tokenizer", "--max-shard-gigabytes", 20e-6]


@pytest.fixture
def stopped_export(run_dir, tmp_path, monkeypatch):
    """What an export left that was stopped after some tensors."""
    with monkeypatch.context() as patch:
        read_tensor = stopped_after(hugging_face.read_tensor, STOP_AFTER)
        patch.setattr(hugging_face, "read_tensor", read_tensor)
        assert convert("to-hf", run_dir, tmp_path / "out", *EXPORT) == 130
    return tmp_path / ".out.partial" / "result"


def test_an_export_goes_on_where_it_was(stopped_export, run_dir, tmp_path, monkeypatch, capfd):
    assert not (tmp_path / "out").exists()
    assert not {"config.json", "certificate.json"} & contents(stopped_export).keys()
    names = []
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, "read_tensor", counted(hugging_face.read_tensor, names))
        assert convert("to-hf", run_dir, tmp_path / "out", *EXPORT) == 0
    assert len(names) == 30 - STOP_AFTER
    assert f"an earlier start wrote {STOP_AFTER} parts" in capfd.readouterr().err
    assert not stopped_export.parent.exists()
    assert convert("to-hf", run_dir, tmp_path / "whole", *EXPORT) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_what_was_damaged_meanwhile_is_written_again(stopped_export, run_dir, tmp_path, damage):
    # That with the most tensors; nothing behind its first one stays either.
    path = max(stopped_export.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    if damage == "flipped":
        data[header + 5] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[: header + 5])
    else:
        path.unlink()
    assert convert("to-hf", run_dir, tmp_path / "out", *EXPORT) == 0
    assert convert("check", run_dir, tmp_path / "out") == 0


def test_another_request_begins_again(stopped_export, run_dir, tmp_path, monkeypatch, capfd):
    names = []
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, "read_tensor", counted(hugging_face.read_tensor, names))
        assert convert("to-hf", run_dir, tmp_path / "out", *EXPORT, "--dtype", "float32") == 0
    assert len(names) == 30
    assert "earlier start" not in capfd.readouterr().err
    assert convert("to-hf", run_dir, tmp_path / "whole", *EXPORT, "--dtype", "float32") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_import_goes_on_where_it_was(source, tmp_path, monkeypatch, capfd):
    write_pieces = hugging_face_import.write_pieces
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face_import, "write_pieces", stopped_after(write_pieces, STOP_AFTER))
        assert convert("from-hf", source, tmp_path / "out") == 130
    assert not (tmp_path / "out").exists()
    written = []

    def count(content, target, **options):
        written.append(target)
        return write_pieces(content, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(hugging_face_import, "write_pieces", count)
        assert convert("from-hf", source, tmp_path / "out") == 0
    assert len(written) == 30 - STOP_AFTER
    assert f"an earlier start wrote {STOP_AFTER} parts" in capfd.readouterr().err
    assert convert("from-hf", source, tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


KILLED = """
import os, sys
from llama_jax.cli.main import main
from llama_jax.convert import result_folder
record, count = result_folder.Unfinished.record, 0

def killed(self, name, entry):
    global count
    record(self, name, entry)
    count += 1
    if count == 12:
        os.kill(os.getpid(), 9)

result_folder.Unfinished.record = killed
sys.exit(main(["convert", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("kind", ["from-hf", "to-hf", "to-meta"])
def test_a_conversion_that_was_killed_goes_on(source, run_dir, tmp_path, capfd, kind):
    if kind == "to-meta":
        write_hf(tmp_path / "even", shrunk(), "bfloat16")
        assert convert("from-hf", tmp_path / "even", tmp_path / "even_run") == 0
    arguments = {
        "from-hf": [source],
        "to-hf": [run_dir, *EXPORT],
        "to-meta": [tmp_path / "even_run", "--model-parallel", 2],
    }[kind]
    command = [sys.executable, "-c", KILLED, kind, *map(str, arguments), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    capfd.readouterr()
    assert convert(kind, *arguments, tmp_path / "out") == 0
    assert "an earlier start wrote 12 parts" in capfd.readouterr().err
    assert not (tmp_path / ".out.partial").exists()
    assert convert(kind, *arguments, tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_files_of_a_source_that_changed_are_not_mixed(source, tmp_path, monkeypatch):
    write_pieces = hugging_face_import.write_pieces
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face_import, "write_pieces", stopped_after(write_pieces, STOP_AFTER))
        assert convert("from-hf", source, tmp_path / "out") == 130
    path = source / "model-00001-of-00002.safetensors"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, (1, 1))
    assert convert("from-hf", source, tmp_path / "out") == 0
    assert convert("check", source, tmp_path / "out") == 0


def fill(out_dir, request, *names, error: BaseException | None = None) -> dict[str, object]:
    """What an earlier start recorded of parts, which are recorded now."""
    known = {}
    with result_folder(out_dir, request) as unfinished:
        for name in names:
            known[name] = unfinished.known(name)
            (unfinished.folder / name).write_text(name)
            unfinished.record(name, {"part": name})
        if error is not None:
            raise error
    return known


def test_a_refusal_removes_what_was_written(tmp_path):
    with pytest.raises(ValueError, match="a value is NaN"):
        fill(tmp_path / "out", REQUEST, "a", error=ValueError("a value is NaN"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_was_written(tmp_path):
    with pytest.raises(OSError, match="no space"):
        fill(tmp_path / "out", REQUEST, "a", error=OSError("no space"))
    assert fill(tmp_path / "out", REQUEST, "a", "b") == {"a": {"part": "a"}, "b": None}
    assert contents(tmp_path) == {"out/a": b"a", "out/b": b"b"}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_journal_that_was_cut_loses_its_last_line_alone(tmp_path, cut):
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "out", REQUEST, "a", "b", error=KeyboardInterrupt())
    journal = tmp_path / ".out.partial" / "journal.jsonl"
    whole = journal.read_bytes()
    assert len(whole.splitlines(keepends=True)[-1]) >= cut
    journal.write_bytes(whole[:-cut])
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "out", REQUEST, "c", error=KeyboardInterrupt())
    known = fill(tmp_path / "out", REQUEST, "a", "b", "c")
    assert known == {"a": {"part": "a"}, "b": None, "c": {"part": "c"}}


def test_two_conversions_never_write_one_folder(tmp_path):
    with (
        result_folder(tmp_path / "out", REQUEST),
        pytest.raises(ValueError, match="another conversion is writing it"),
    ):
        fill(tmp_path / "out", REQUEST, "a")
    assert (tmp_path / "out").is_dir()


def test_a_folder_of_somebody_else_is_not_taken(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"has thesis\.tex, which no conversion wrote"):
        fill(tmp_path / "out", REQUEST, "a")
    assert contents(tmp_path) == {".out.partial/thesis.tex": b"precious"}


def test_parts_of_inner_folders_are_recorded_apart(tmp_path):
    with pytest.raises(KeyboardInterrupt), result_folder(tmp_path / "out", REQUEST) as unfinished:
        unfinished.below("inner").record("a", 1)
        unfinished.record("b", 2)
        raise KeyboardInterrupt
    with result_folder(tmp_path / "out", json.loads(json.dumps(REQUEST))) as unfinished:
        assert unfinished.known("a") is None
        assert unfinished.below("inner").known("a") == 1
        assert unfinished.known("b") == 2
