"""A small dataset and the command, as in the tests of training, and runs of several processes."""

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
