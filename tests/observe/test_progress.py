"""Progress is a bar in a terminal and plain lines anywhere else."""

import io

import pytest

from llama_jax.observe import progress as module
from llama_jax.observe.progress import Progress, describe, human_seconds
from llama_jax.observe.throughput import Peak, Throughput

THROUGHPUT = Throughput(
    tokens_per_second_per_chip=12_345,
    mfu_causal=0.412,
    mfu_full=0.44,
    peak=Peak(flops_per_second=459e12, dtype="bf16", source="v5p"),
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is set."""

    class Clock:
        now = 0.0

    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    return clock


def test_without_a_terminal_each_report_is_a_line(clock):
    file = io.StringIO()
    with Progress("train", total=400, done=100, file=file) as progress:
        for step in range(101, 121):
            clock.now = 30.0 + 2.0 * (step - 101)  # the first step compiles for 30 s
            progress.advance(step)
        file.truncate(0), file.seek(0)  # lines that `advance` prints by time are another claim
        progress.report(120, describe(3.2141, THROUGHPUT))
    assert file.getvalue() == (
        "train 120/400 · loss 3.214 · 12,345 tok/s/chip · MFU 41.2% (causal) 44.0% (full) of "
        "459 TFLOP/s bf16 (v5p) · 1:08 elapsed · 9:20 left\n"
    )


def test_a_stage_that_never_reports_prints_a_line_every_ten_seconds(clock):
    file = io.StringIO()
    with Progress("tokenize", total=None, unit="documents", file=file) as progress:
        for second in range(25):
            clock.now = float(second)
            progress.advance(second * 1000)
    assert [line.split(" · ")[0] for line in file.getvalue().splitlines()] == [
        "tokenize 10,000 documents",
        "tokenize 20,000 documents",
        "tokenize 24,000 documents",
    ]


def test_a_bar_shows_counts_status_and_lasting_lines(clock):
    file = io.StringIO()
    with Progress("train", total=20, file=file, live=True) as progress:
        progress.report(5, "loss 3.214")
        progress.say("saved checkpoint [5]")
        clock.now = 4.0
        progress.advance(10)
    drawn = file.getvalue()
    assert "saved checkpoint [5]\n" in drawn
    last = drawn[drawn.rindex("train") :]
    assert "10/20" in last
    assert "loss 3.214" in last
    assert "0:08 left" in last or "0:04 elapsed" in last


def test_a_bar_leaves_stdout_alone(capsys):
    with Progress("train", total=2, file=io.StringIO(), live=True) as progress:
        print('{"result": 1}')
        progress.advance(1)
    assert capsys.readouterr().out == '{"result": 1}\n'


def test_a_failure_leaves_the_terminal_usable():
    file = io.StringIO()
    with pytest.raises(RuntimeError), Progress("train", total=2, file=file, live=True):
        raise RuntimeError
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")  # cursor


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (41, "0:41"), (723, "12:03"), (11045, "3:04:05"), (183845, "2d 03:04:05")],
)
def test_times_are_short(seconds, text):
    assert human_seconds(seconds) == text


def test_a_status_that_comes_late_stands_beside_its_own_count():
    out = io.StringIO()
    with Progress("train", total=10, file=out) as progress:
        progress.advance(6)
        progress.report(5, "loss 1.000")
    first, last = out.getvalue().splitlines()
    assert first.startswith("train 5/10 · loss 1.000")
    assert last.startswith("train 6/10")
