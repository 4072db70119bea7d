"""Runs that are trained side by side in one program are those that are trained alone."""

import numpy as np
import pytest

from llama_jax.model import init_params
from llama_jax.sharding import use_layout
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.replicas import Replica, Replicas
from llama_jax.train.schedule import make_schedule
from llama_jax.train.state import init_state
from tests.train.tiny_run import counting_batch, on_mesh, start, tiny_config

RUNS = [
    Replica(peak_lr=rate, seed=seed) for rate, seed in ((1e-2, 0), (1e-2, 1), (3e-2, 0), (1e6, 1))
]


def alone(config, run, batches):
    """Losses of a single run, by the step that `llama-jax train` takes."""
    rate = make_schedule(config.schedule, peak_lr=run.peak_lr, num_steps=len(batches))
    _, step = start(config)
    _, params = init_params(config.model, config.compute, run.seed)
    state, losses = init_state(params, make_optimizer(config.optimizer)), []
    for done, batch in enumerate(batches):
        state, metrics = step(state, batch, np.float32(rate(done)))
        losses.append(float(metrics["loss_nats_per_token"]))
    return losses


@pytest.mark.slow
def test_runs_in_one_program_are_those_that_are_trained_alone(one_device):
    config = tiny_config(train__num_steps=8)
    batches = [on_mesh(counting_batch(seed), one_device) for seed in range(8)]
    together = Replicas(config, one_device).train(RUNS, batches)
    assert together.shape == (8, 4)
    with use_layout(one_device):
        each = np.array([alone(config, run, batches) for run in RUNS[:3]]).T
    np.testing.assert_allclose(together[:, :3], each, rtol=2e-5)
    # Of the same seed, at a rate that teaches nothing: it touches none of those beside it.
    assert together[-1, 3] > together[-1, 1] + 0.02
