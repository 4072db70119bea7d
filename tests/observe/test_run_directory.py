"""A run's folder belongs to one process and one config."""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from llama_jax import recipe
from llama_jax.cli.main import main
from llama_jax.config import Cosine, LogConfig, MeshConfig, TrainConfig, WarmupStableDecay
from llama_jax.observe import run_lock
from llama_jax.observe.run_directory import RunDirectory

# Numbers of its own: the demo is tuned without a thought of this file.
BASE = dataclasses.replace(
    recipe.load_recipe("demo"),
    schedule=WarmupStableDecay(warmup_steps=40, decay_steps=100),
    train=TrainConfig(num_steps=400, batch_size=16),
)


def change(config, **sections):
    """`change(config, train=dict(seed=1))` with any number of sections."""
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **value)
            if isinstance(value, dict)
            else value
            for name, value in sections.items()
        },
    )


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    with RunDirectory(tmp_path / "run"):
        with pytest.raises(ValueError) as refusal:
            RunDirectory(tmp_path / "run")
        assert f"pid {os.getpid()} on {socket.gethostname()} since 2" in str(refusal.value)
    RunDirectory(tmp_path / "run").close()


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from llama_jax.observe.run_directory import RunDirectory\n"
        "run = RunDirectory(pathlib.Path(sys.argv[1]))\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"in use by pid {holder.pid} on"):
            RunDirectory(tmp_path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunDirectory(tmp_path):
        assert f'"pid": {os.getpid()}, "host"' in (tmp_path / "lock").read_text()


@contextlib.contextmanager
def locked_elsewhere(folder):
    """As a file server shows a lock of another machine."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = {"pid": 12, "host": "host-3", "since": "then", "machine": "host-3, another boot"}
        file.write(json.dumps(holder))
        file.flush()
        yield file


def test_a_lock_of_another_machine_is_waited_for(tmp_path, monkeypatch, capsys):
    with locked_elsewhere(tmp_path) as file:
        monkeypatch.setattr("time.sleep", lambda _: file.close())  # it was saving, and ends
        RunDirectory(tmp_path).close()
    told = f"run_dir={tmp_path} is in use by pid 12 on host-3 since then; waiting for it\n"
    assert capsys.readouterr().err == f"llama-jax: {told}"


def test_a_dead_machine_that_keeps_its_lock_is_a_failure_to_be_tried_again(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 0.0)
    (tmp_path / "config.json").write_text(recipe.to_json(BASE))
    with locked_elsewhere(tmp_path):
        assert main(["taint", str(tmp_path), "--since", "1"]) == 1  # not 2: launchers try again
    assert "pid 12 on host-3 since then, and was for 0 s. Try" in capsys.readouterr().err


def test_the_saved_config_is_a_recipe(tmp_path):
    with RunDirectory(tmp_path) as run:
        assert run.check(BASE, resume_step=None) == [] and not run.config.exists()
        run.adopt(BASE)
    assert recipe.load_recipe(str(run.config)) == BASE


def test_another_config_is_refused_with_every_difference(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.adopt(BASE)
        before = run.config.read_bytes()
        other = change(BASE, train={"batch_size": 32, "seed": 7}, log=LogConfig(every_steps=1))
        with pytest.raises(ValueError) as refusal:
            run.check(other, resume_step=100)
        assert "train.batch_size: 16 -> 32\n  train.seed: 0 -> 7\n" in str(refusal.value)
        assert "log.every_steps" not in str(refusal.value)
        assert run.config.read_bytes() == before


def test_how_a_run_is_computed_and_watched_may_change(tmp_path):
    other = change(
        BASE,
        log=LogConfig(every_steps=1),
        mesh=MeshConfig(fsdp=4),
        train={"accumulation_steps": 2},
        checkpoint={"every_steps": 50},
        compute={"remat": "full"},
        evaluate={"every_steps": 7},
    )
    with RunDirectory(tmp_path) as run:
        run.adopt(BASE)
        lines = run.check(other, resume_step=100)
        assert "mesh.fsdp: -1 -> 4" in lines
        assert len(lines) == 6
        run.adopt(other)
        assert recipe.load_recipe(str(run.config)) == other
        assert run.check(other, resume_step=100) == []


def test_data_may_lie_elsewhere_where_it_is_known_which_they_are(tmp_path):
    moved = change(BASE, data={"directory": "elsewhere"})
    with RunDirectory(tmp_path) as run:
        run.adopt(BASE)
        with pytest.raises(ValueError, match=r"data\.directory: .* -> elsewhere"):
            run.check(moved, resume_step=100)
        (line,) = run.check(moved, resume_step=100, data_is_known=True)
        assert line.startswith("data.directory: ")


LONGER = change(BASE, train={"num_steps": 4000})  # BASE cools down from step 300 to 400


@pytest.mark.parametrize(
    ("old", "new", "step", "allowed"),
    [
        pytest.param(BASE, LONGER, 300, True, id="longer, from the plateau"),
        pytest.param(BASE, LONGER, 301, False, id="longer, from the cooldown"),
        pytest.param(BASE, LONGER, None, False, id="longer, with no checkpoint"),
        pytest.param(LONGER, BASE, 300, True, id="cooled down now"),
        pytest.param(LONGER, BASE, 301, False, id="cooled down from a step that is past"),
        pytest.param(
            BASE,
            change(LONGER, schedule=WarmupStableDecay(warmup_steps=40, decay_steps=10)),
            200,
            True,
            id="another cooldown",
        ),
        pytest.param(
            BASE,
            change(LONGER, schedule=WarmupStableDecay(warmup_steps=20, decay_steps=100)),
            200,
            False,
            id="another warm-up",
        ),
        pytest.param(
            change(BASE, schedule=Cosine(warmup_steps=40)),
            change(LONGER, schedule=Cosine(warmup_steps=40)),
            100,
            False,
            id="a cosine depends on its length from the start",
        ),
    ],
)
def test_the_length_may_change_only_before_the_cooldown(tmp_path, old, new, step, allowed):
    with RunDirectory(tmp_path) as run:
        run.adopt(old)
        if allowed:
            assert any("train.num_steps" in line for line in run.check(new, resume_step=step))
        else:
            with pytest.raises(ValueError, match=r"train\.num_steps|schedule\.warmup_steps"):
                run.check(new, resume_step=step)


@pytest.mark.parametrize("text", ["", "{", '{"name": "x"}'])
def test_an_unreadable_config_is_refused_not_replaced(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with RunDirectory(tmp_path) as run, pytest.raises(ValueError, match=r"config\.json cannot be"):
        run.check(BASE, resume_step=None)
    assert (tmp_path / "config.json").read_text() == text


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        RunDirectory(tmp_path / "run")


def test_other_processes_of_a_run_share_the_folder(tmp_path):
    with RunDirectory(tmp_path) as first, RunDirectory(tmp_path, lock=False) as second:
        second.adopt(BASE)
        assert not second.config.exists()
        first.adopt(BASE)
        assert second.check(BASE, resume_step=None) == []
