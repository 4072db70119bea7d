"""A small dataset and the command, as in the tests of training, and stand-ins for tools."""

import contextlib
import os
import random
import socket
import stat

import pytest

from llama_jax.config import CheckpointConfig, EvaluateConfig, RunConfig
from tests.train.conftest import (  # noqa: F401 (fixtures)
    compile_cache,
    compiles_once,
    corpus,
    llama_jax,
)
from tests.train.tiny_run import tiny_config


@pytest.fixture(scope="session")
def config(corpus) -> RunConfig:  # noqa: F811
    """A run of 12 steps that saves after 5, 10 and 12."""
    return tiny_config(
        data__directory=str(corpus),
        train__num_steps=12,
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(num_batches=1),
    )


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a tool on the path that notes how it is called and answers by a shell script."""

    def put(name, script):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "calls"

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return put


def quiet_ports(count: int) -> list[int]:
    """Free ports below those that the system gives to whoever asks for any."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found += [port] * (port not in found)
    return found
