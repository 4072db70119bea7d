"""Metrics survive kills, and a resumed run writes no step twice."""

import dataclasses
import importlib.util
import json
import math
import sys
import types

import pytest

from llama_jax import recipe
from llama_jax.config import LogConfig
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.observe.writers import JsonlWriter, TensorBoardWriter, open_writer, read_metrics

CONFIG = recipe.load_recipe("demo")


def config_with(**log):
    return dataclasses.replace(CONFIG, log=LogConfig(**log))


def write_steps(path, *steps):
    writer = JsonlWriter(path)
    for step in steps:
        writer.write(step, {"loss": step / 10})
    writer.close()


def steps_of(path):
    return [record["step"] for record in read_metrics(path)]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer.write(5, {"loss": 1.5, "tokens_seen": 10**17 + 1})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 5, "loss": 1.5, "tokens_seen": 100000000000000001}\n'
    )
    writer.close()


def test_a_resumed_run_forgets_lines_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, 10, 20, 20, 30, 40)
    writer = JsonlWriter(path)
    writer.resume(20)
    writer.write(30, {"loss": -1.0})
    writer.close()
    assert steps_of(path) == [10, 20, 20, 30]
    assert read_metrics(path)[-1]["loss"] == -1.0


@pytest.mark.parametrize("torn", [b'{"step": 20, "lo', b"\x00" * 5000, b'{"step": 20}', b"\xff{"])
def test_a_torn_last_line_is_repaired(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, 10)
    with path.open("ab") as file:
        file.write(torn)
    assert steps_of(path) == [10]
    write_steps(path, 30)
    assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [10, 30]


def test_a_torn_line_longer_than_a_block_is_repaired(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, 10)
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    write_steps(path, 30)
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"\n", b'{"st', b"[1]\n{}\n", b'{"step": "a"}\n'])
def test_a_file_without_records_reads_as_empty_and_can_be_resumed(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    assert read_metrics(path) == []
    writer = JsonlWriter(path)
    writer.resume(5)
    writer.write(6, {"loss": 1.0})
    writer.close()
    assert path.read_text() == '{"step": 6, "loss": 1.0}\n'


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl: there is no such file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_what_is_not_finite_stays_valid_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(1, {"loss": math.nan, "grad_norm": math.inf})
    writer.close()
    assert path.read_text() == '{"step": 1, "loss": null, "grad_norm": null}\n'
    assert math.isnan(read_metrics(path)[0]["loss"])


def read_events(folder):
    """(step, tag, value) of all event files, read as TensorBoard does: purged steps are gone."""
    from tensorboardX.proto.event_pb2 import Event

    points = []
    for path in sorted(folder.iterdir()):
        content, start = path.read_bytes(), 0
        while start < len(content):
            length = int.from_bytes(content[start : start + 8], "little")
            event = Event.FromString(content[start + 12 : start + 12 + length])
            start += 12 + length + 4
            if event.HasField("session_log") and event.session_log.status == 1:
                points = [point for point in points if point[0] < event.step]
            points += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return points


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": float(step)})
    writer.resume(2)
    writer.write(3, {"loss": 7.0})
    writer.close()
    assert read_events(tmp_path) == [(1, "loss", 1.0), (2, "loss", 2.0), (3, "loss", 7.0)]


def test_a_config_chooses_the_writers(tmp_path):
    with RunDirectory(tmp_path / "a") as run:
        with open_writer(run, config_with(tensorboard=False), resume_step=None) as writer:
            writer.write(1, {"loss": 1.0})
        assert run.metrics.is_file()
        assert not run.tensorboard.exists()
    with RunDirectory(tmp_path / "b") as run:
        with open_writer(run, config_with(tensorboard=True), resume_step=None) as writer:
            writer.write(1, {"loss": 1.0})
        assert read_events(run.tensorboard) == [(1, "loss", 1.0)]


def test_one_process_of_a_run_writes(tmp_path):
    with (
        RunDirectory(tmp_path, lock=False) as run,
        open_writer(run, config_with(wandb_project="study"), resume_step=None) as writer,
    ):
        writer.write(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_forgets_what_was_written_without_a_checkpoint(tmp_path):
    with RunDirectory(tmp_path) as run:
        write_steps(run.metrics, 0, 1, 2)
        with open_writer(run, config_with(tensorboard=False), resume_step=None) as writer:
            writer.write(1, {"loss": 9.0})
        assert read_metrics(run.metrics) == [{"step": 1, "loss": 9.0}]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_wandb_that_is_not_installed_is_refused_with_the_command(tmp_path):
    config = config_with(wandb_project="study")
    with (
        RunDirectory(tmp_path) as run,
        pytest.raises(ValueError, match=r"log\.wandb_project='study' .*llama-jax\[wandb\]"),
        open_writer(run, config, resume_step=None),
    ):
        pass


def test_a_resumed_run_continues_the_same_wandb_run(tmp_path, monkeypatch):
    started, logged = [], []
    run = types.SimpleNamespace(
        id="abc", define_metric=lambda *a, **k: None, log=logged.append, finish=lambda: None
    )
    fake = types.SimpleNamespace(init=lambda **kwargs: started.append(kwargs) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = config_with(wandb_project="study", tensorboard=False)
    for resume_step in (None, 4):
        with (
            RunDirectory(tmp_path) as folder,
            open_writer(folder, config, resume_step=resume_step) as writer,
        ):
            writer.write(5, {"loss": 1.0})
    assert [kwargs["id"] for kwargs in started] == [None, "abc"]
    assert started[0]["config"]["model"]["num_layers"] == CONFIG.model.num_layers
    assert logged == [{"step": 5, "loss": 1.0}] * 2
