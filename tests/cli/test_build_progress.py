"""What a person sees while a build runs."""

import contextlib
import io
import re

import pytest
from rich import console

from llama_jax.cli import pipelines
from llama_jax.cli.data.progress import BuildProgress
from llama_jax.cli.main import main


@pytest.fixture
def screen(monkeypatch):
    """What goes to a terminal that is 100 columns wide."""
    written = io.StringIO()

    def terminal(**options):
        return console_class(
            file=written, force_terminal=True, width=100, color_system=None, **options
        )

    console_class = console.Console
    monkeypatch.setattr(console, "Console", lambda stderr, **options: terminal(**options))
    return written


def lines_of(screen):
    """Lines that stay: those of stages that are done."""
    return re.findall(r"✓ (.*?) +([\d.]+ k?M?B)", screen.getvalue())


def test_a_stage_that_is_done_stays_as_a_line_with_its_size(screen):
    with BuildProgress() as progress:
        progress.stage("collect books", 2000)
        progress.stage("collect web", 5_000_000)
        progress.advance("collect books", 1500)
        assert not lines_of(screen)
        progress.advance("collect books", 500)
        assert lines_of(screen) == [("collect books", "2.00 kB")]
        progress.stage("gather books", 7000)
        assert lines_of(screen)[1:] == [("collect web", "5.00 MB")]
    assert lines_of(screen)[2:] == [("gather books", "7.00 kB")]


def test_estimates_that_are_wrong_harm_nothing(screen):
    with BuildProgress() as progress:
        progress.stage("tokenize/train books", 1000)
        progress.advance("tokenize/train books", 1700)
        assert lines_of(screen) == [("tokenize/train books", "1.00 kB")]
        progress.advance("tokenize/train books", 300)
        progress.stage("tokenize/heldout books", 0)
        progress.advance("tokenize/heldout books", 0)
    assert lines_of(screen) == [
        ("tokenize/train books", "1.00 kB"),
        ("tokenize/heldout books", "0 B"),
    ]


def test_a_step_of_the_same_name_is_another_line(screen):
    with BuildProgress() as progress:
        for step in ("join", "deduplicate", "join", "deduplicate"):
            progress.stage(f"{step} books", 3000)
    assert [name for name, _ in lines_of(screen)] == ["join books", "deduplicate books"] * 2


def test_a_build_that_fails_claims_no_end(screen):
    with pytest.raises(ValueError, match="broken"), BuildProgress() as progress:
        progress.stage("collect books", 2000)
        raise ValueError("broken")
    assert not lines_of(screen)


def test_elsewhere_a_stage_is_one_line(capsys):
    with BuildProgress() as progress:
        progress.stage("collect books", 2000)
        progress.stage("collect web", 2000)
        progress.advance("collect books", 2000)
        progress.stage("gather books", 2000)
    assert capsys.readouterr().err == "collect books ...\ncollect web ...\ngather books ...\n"


def test_a_worker_that_died_is_told_at_once(screen):
    told = "A process died, killed for lack of memory perhaps; run again: collect/b/1, collect/b/2."
    with BuildProgress() as progress:
        progress.stage("collect b", 2000)
        progress.died(["collect/b/1", "collect/b/2"])
        assert told in screen.getvalue()


def test_elsewhere_a_worker_that_died_is_a_line(capsys):
    with BuildProgress() as progress:
        progress.died(["collect/[b]/1"])
    assert capsys.readouterr().err.endswith("perhaps; run again: collect/[b]/1.\n")


def test_a_bucket_to_work_in_is_refused_by_its_address(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--out", "out", "--work", "gs://bucket/data"]
    assert main(["data", "build", "demo", *arguments]) == 2
    assert "--work=gs://bucket/data: what stages leave" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [(ConnectionResetError("peer"), 1, "failed: "), (ValueError("no such thing"), 2, "error: ")],
)
def test_work_that_failed_is_told_from_a_wrong_request(
    tmp_path, monkeypatch, capsys, raised, code, said
):
    def reads_nothing(*arguments):
        raise raised

    monkeypatch.setattr("data_pipelines.raw_stream.time.sleep", lambda seconds: None)
    if code == 1:
        monkeypatch.setattr("data_pipelines.document.RawFile._stream", reads_nothing)
    else:
        monkeypatch.setattr("data_pipelines.sources.files.Files.read", reads_nothing)
    (tmp_path / "a.txt").write_text("text")
    arguments = ["--input", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out")]
    assert main(["data", "build", "demo", *arguments, "--workers", "1"]) == code
    assert said in capsys.readouterr().err


def test_an_interrupted_build_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    class Runner:
        def executor(self, *arguments):
            return contextlib.nullcontext()

        def build(self, *arguments, **options):
            raise KeyboardInterrupt

    load = pipelines.load_pipelines
    monkeypatch.setattr(
        pipelines, "load_pipelines", lambda name: Runner() if name == "runner" else load(name)
    )
    assert main(["data", "build", "demo", "--out", str(tmp_path / "out")]) == 75
    assert "run the same command again to go on" in capsys.readouterr().err
