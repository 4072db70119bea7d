"""Storage that fails now and then costs starts of a run, and nothing of what it computes."""

import collections

import pytest

from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.data.dataset import Dataset
from llama_jax.train.history import documents_seen
from llama_jax.train.loop import train
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config


@pytest.mark.slow
def test_a_run_whose_every_tenth_read_fails_is_the_run_left_alone(
    corpus, tmp_path, one_device, monkeypatch
):
    config = tiny_config(
        data__directory=str(corpus),
        checkpoint=CheckpointConfig(every_steps=5),
        evaluate=EvaluateConfig(num_batches=1),
    )
    train(config, tmp_path / "straight")
    reads, really = collections.Counter(), Dataset.batch

    def batch(self, first_sample):
        # Of the order, not of the clock: threads read ahead as far as they like.
        place = first_sample // config.train.batch_size
        reads[place] += 1
        if place % 10 == 9 and reads[place] == 1:
            raise OSError(f"the disk did not answer for sample {first_sample}")
        return really(self, first_sample)

    monkeypatch.setattr(Dataset, "batch", batch)
    starts = 0
    while True:
        starts += 1
        try:
            outcome = train(config, tmp_path / "run")
            break
        except OSError as failure:
            assert "did not answer" in str(failure)
    assert outcome.step == 20 and starts in (2, 3)
    assert_equal(*(saved_arrays(tmp_path / run, config, 20) for run in ("straight", "run")))
    seen = [list(documents_seen(tmp_path / run, 20)) for run in ("straight", "run")]
    assert seen[0] == seen[1]
