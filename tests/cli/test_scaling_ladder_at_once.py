"""Runs of a ladder side by side: real processes, which come to what one process comes to."""

import contextlib
import csv
import dataclasses
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llama_jax.cli.main import main
from llama_jax.cli.scaling.ladder_training import record
from llama_jax.config import LadderConfig, Rung
from llama_jax.recipe import to_json
from tests.train.conftest import compile_cache, corpus, llama_jax  # noqa: F401 (fixtures)
from tests.train.tiny_run import MODEL, tiny_config

TINY = Path(__file__).parents[2] / "configs" / "ladders" / "tiny.py"


def small_ladder(corpus, *, num_steps=(10, 20)) -> LadderConfig:  # noqa: F811
    """Three sizes below 10,000 parameters."""
    shapes = [dataclasses.replace(MODEL, num_layers=layers) for layers in (1, 2, 3)]
    return LadderConfig(
        name="small",
        base=tiny_config(data__directory=str(corpus)),
        rungs=tuple(
            Rung(model=shape, peak_lr=1e-2, batch_size=8, num_steps=num_steps) for shape in shapes
        ),
        held_out_rungs=0,
    )


def losses(folder: Path) -> dict[str, float]:
    with (folder / "runs.csv").open() as file:
        return {row["run"]: float(row["loss"]) for row in csv.DictReader(file)}


class Threads:
    """A trainer whose runs take a while, and are noted."""

    def __init__(self, at_once, stopped=()):
        self.at_once, self._stopped, self.told = at_once, stopped, 0
        self._pool = ThreadPoolExecutor(at_once)
        self.running, self.most, self.begun, self.ended = set(), 0, [], []

    def submit(self, run, out):
        self.running.add(run.name)
        self.most = max(self.most, len(self.running))
        assert not run.origin or run.origin in self.ended
        self.begun.append(run.name)
        return self._pool.submit(self._train, run)

    def _train(self, run):
        time.sleep(0.01)
        self.ended.append(run.name)
        self.running.remove(run.name)
        loss = 3.0 + 1e5 / run.params + 1e5 / run.tokens
        return None if run.name in self._stopped else record(run, loss, "")

    def stop(self):
        self.told += 1


def climb(monkeypatch, tmp_path, trainer):
    monkeypatch.setattr(
        "llama_jax.cli.scaling.ladder.open_trainer", lambda *_: contextlib.nullcontext(trainer)
    )
    command = ["scaling", "ladder", str(TINY), "--out", str(tmp_path), "--resamples", "0"]
    return main([*command, "--at-once", str(trainer.at_once)])


def test_a_run_begins_when_there_is_room_and_its_origin_is_done(monkeypatch, tmp_path):
    trainer = Threads(3)
    climb(monkeypatch, tmp_path, trainer)
    assert trainer.most == 3
    assert len(trainer.begun) == len(set(trainer.begun)) == 24
    assert trainer.begun[:2] == ["rung0-seed0-plateau80", "rung1-seed0-plateau80"]


def test_one_stopped_run_stops_the_others_and_nothing_new_begins(monkeypatch, tmp_path):
    trainer = Threads(2, stopped=("rung1-seed0-plateau80",))
    assert climb(monkeypatch, tmp_path, trainer) == 75
    assert trainer.told >= 1
    assert len(trainer.begun) < 6


@pytest.mark.parametrize("at_once", [0, 100_000])
def test_each_run_needs_a_core(tmp_path, capsys, at_once):
    command = ["scaling", "ladder", str(TINY), "--out", str(tmp_path)]
    assert main([*command, "--at-once", str(at_once)]) == 2
    assert f"--at-once={at_once} must be between 1 and " in capsys.readouterr().err


@pytest.mark.slow
def test_side_by_side_they_come_to_the_same_losses(
    corpus,  # noqa: F811
    llama_jax,  # noqa: F811
    tmp_path,
):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("runs side by side need two cores")
    recipe = tmp_path / "ladder.json"
    recipe.write_text(to_json(small_ladder(corpus)))
    command = ("scaling", "ladder", recipe, "--resamples", "0", "--out")
    # Runs so short give no law, which is said after all of them are trained.
    llama_jax.run(*command, tmp_path / "one", expect=2)
    llama_jax.run(*command, tmp_path / "two", "--at-once", "2", expect=2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert "train" in (tmp_path / "two" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_worker", "code", "told"),
    [
        (signal.SIGTERM, False, 75, "stopped; start again to go on from here"),
        (signal.SIGKILL, True, 1, "lost its process"),
    ],
)
def test_stopped_or_without_a_worker_it_ends_and_goes_on_later(
    corpus,  # noqa: F811
    llama_jax,  # noqa: F811
    tmp_path,
    number,
    to_worker,
    code,
    told,
):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("runs side by side need two cores")
    recipe = tmp_path / "ladder.json"
    recipe.write_text(to_json(small_ladder(corpus, num_steps=(3000, 4000))))
    out = tmp_path / "out"
    command = ("scaling", "ladder", recipe, "--at-once", "2", "--out", out)
    process = llama_jax.start(*command, log=tmp_path / "err")
    deadline = time.monotonic() + 120
    while len(begun := list(out.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(begun) == 2
    os.kill(children(process.pid)[-1] if to_worker else process.pid, number)
    process.communicate(timeout=120)
    assert process.returncode == code, (tmp_path / "err").read_text()
    assert told in (tmp_path / "err").read_text()
    if not to_worker:
        # Both were saved, and no process is left.
        assert all(list(run.parent.glob("checkpoints/*")) for run in begun)


def children(pid: int) -> list[int]:
    """Processes that train, which a helper of multiprocessing does not."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in pids
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
