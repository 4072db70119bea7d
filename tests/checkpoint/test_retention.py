"""The forecast is what the rule leaves on disk."""

import jax
import jax.numpy as jnp
import pytest

from llama_jax.checkpoint import forecast, kept_steps
from llama_jax.checkpoint.retention import human_bytes
from llama_jax.config import CheckpointConfig


def test_the_last_ones_and_the_multiples_are_kept():
    config = CheckpointConfig(keep_last=2, keep_every_steps=500)
    assert kept_steps(range(100, 1301, 100), config) == {500, 1000, 1200, 1300}


@pytest.mark.parametrize(
    ("every", "last", "multiples", "num_steps"),
    [(10, 2, 0, 100), (10, 2, 30, 95), (7, 1, 2, 41), (100, 3, 50, 40), (10, 1, 10, 100)],
)
def test_the_forecast_is_what_a_run_leaves(every, last, multiples, num_steps):
    config = CheckpointConfig(every_steps=every, keep_last=last, keep_every_steps=multiples)
    disk, most = set(), 0
    for step in range(1, num_steps + 1):
        if step % every == 0 or step == num_steps:
            disk.add(step)
            most = max(most, len(disk))
            disk = set(kept_steps(disk, config))
    predicted = forecast({"w": jnp.ones(5)}, config, num_steps=num_steps)
    assert predicted.checkpoint_bytes == 20
    assert predicted.kept_at_end == len(disk)
    assert predicted.bytes_at_end == 20 * len(disk)
    assert predicted.peak_bytes == 20 * most


def test_a_forecast_needs_no_memory():
    state = {"w": jax.ShapeDtypeStruct((1_000_000, 1_000_000), jnp.bfloat16)}
    config = CheckpointConfig(every_steps=100, keep_last=2, keep_every_steps=500)
    assert str(forecast(state, config, num_steps=1050)) == (
        "2 TB a checkpoint, 3 checkpoints at the end (6 TB), at most 8 TB on disk"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (408_014_680, "408 MB"), (1.25e12, "1.25 TB")],
)
def test_bytes_are_rounded_to_three_digits(count, text):
    assert human_bytes(count) == text
