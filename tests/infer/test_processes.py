"""Evaluation and generation say on two processes what they say on one with as many devices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_jax.checkpoint.checkpointer import Checkpointer
from llama_jax.config import MeshConfig
from llama_jax.recipe import to_json
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.processes import hold_port
from tests.infer.saved_run import random_params, write_run
from tests.train.conftest import (  # noqa: F401 (fixtures)
    PATIENCE_SECONDS,
    Command,
    compile_cache,
    corpus,
    llama_jax,
)
from tests.train.tiny_run import tiny_config

pytestmark = pytest.mark.slow


def answers(command: Command, count: int, *arguments: object) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each of so many processes, with two devices in all."""
    with hold_port() as held:
        several = {
            "LLAMA_JAX_COORDINATOR": f"127.0.0.1:{held.getsockname()[1]}",
            "LLAMA_JAX_NUM_PROCESSES": str(count),
            "JAX_NUM_CPU_DEVICES": str(2 // count),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "llama_jax.cli.main", *map(str, arguments)],
                env=command.environment | several | {"LLAMA_JAX_PROCESS_ID": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]
        told = [process.communicate(timeout=PATIENCE_SECONDS) for process in started]
    return [(p.returncode, *said) for p, said in zip(started, told, strict=True)]


def document(out: str) -> dict:
    """The last line; Gloo says on stdout to how many it is connected."""
    return json.loads(out.splitlines()[-1])


def assert_same(command: Command, name: str, *arguments: object) -> None:
    [(code, alone, told)] = answers(command, 1, *arguments, "--json")
    assert code == 0, told
    (code, first, told), (other_code, second, _) = answers(command, 2, *arguments, "--json")
    assert (code, other_code) == (0, 0), told
    assert document(first)[name] == document(alone)[name] and "{" not in second


def test_two_processes_score_as_one(llama_jax, corpus, tmp_path):  # noqa: F811
    config, run = tiny_config(data__directory=str(corpus)), tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(to_json(config))
    with (
        use_layout(make_mesh(MeshConfig())),
        Checkpointer(run / "checkpoints", config.checkpoint) as checkpointer,
    ):
        _, params = random_params(config.model, config.compute, scale=0.3)
        checkpointer.save(7, {"params": params}, {"step": 7})
    assert_same(llama_jax, "held_out", "eval", run, "--num-batches", 2)


def test_two_processes_continue_prompts_as_one(llama_jax, tmp_path):  # noqa: F811
    run: Path = write_run(tmp_path / "run")
    prompts = ("--prompt", "def main(", "--prompt", "the quick", "--temperature", 0.8)
    asked = ("generate", run, *prompts, "--max-new-tokens", 40, "--num-samples", 2)
    assert_same(llama_jax, "completions", *asked, "--tensor", 2)


def test_what_several_processes_cannot_do_is_refused(llama_jax, tmp_path):  # noqa: F811
    run: Path = write_run(tmp_path / "run")
    # The first process is asked: its end may abort the others while they say the same.
    [(code, _, told), *_] = answers(llama_jax, 2, "generate", run, "--prompt", "a")
    assert code == 2 and "--tensor=1 must be 2 here" in told
    [*_, (code, _, told)] = answers(llama_jax, 2, "generate", run)
    assert code == 2 and "give several --prompt TEXT" in told
