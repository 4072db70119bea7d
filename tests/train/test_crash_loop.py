"""A run that dies after the same update again and again is refused once, and says what it reads."""

import dataclasses
import json

import pytest

from llama_jax.config import EvaluateConfig, GuardConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.observe.goodput import NAME, Start, read_goodput, read_starts
from llama_jax.train.crash_loop import died_after
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.loop import train
from llama_jax.train.spikes import SpikeGuard
from tests.train.tiny_run import tiny_config


def starts(*ends):
    return [
        Start(time=0.0, step=5, down_seconds=0.0, end=end, last_step=step, last_time=1.0)
        for step, end in ends
    ]


@pytest.mark.parametrize(
    ("ends", "after"),
    [
        ([], -1),
        ([(7, ""), (7, "")], -1),
        ([(9, ""), (7, ""), (7, ""), (7, "")], 7),
        ([(7, ""), (8, ""), (7, "")], -1),
        ([(7, ""), (7, "stopped"), (7, "")], -1),
        ([(7, ""), (7, ""), (7, "crash loop"), (7, ""), (7, "")], -1),
    ],
)
def test_only_deaths_one_after_another_at_one_update_are_a_loop(ends, after):
    assert died_after(starts(*ends), 3) == after


def test_a_loop_is_refused_once_with_its_documents(corpus, tmp_path, monkeypatch, one_device):
    config = tiny_config(
        data__directory=str(corpus), train__num_steps=6, evaluate=EvaluateConfig(num_batches=1)
    )
    config = dataclasses.replace(config, guards=GuardConfig(max_deaths_at_step=2))

    def see(self, step, metrics):
        if step == 3:
            raise TrainingFailed("as a bug would")

    with monkeypatch.context() as patch:
        patch.setattr(SpikeGuard, "see", see)
        for _ in range(2):
            with pytest.raises(TrainingFailed):
                train(config, tmp_path)
        with pytest.raises(ValueError, match="the last 2 starts died after update 2, and") as told:
            train(config, tmp_path)
        dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
        for document in dataset.documents_of(2 * 8, 8)[:20]:
            assert f"\n  {document.source}: {document.id}" in str(told.value)
        with pytest.raises(TrainingFailed):  # who starts it now has been told
            train(config, tmp_path)
    assert [start.end for start in read_starts(tmp_path / NAME)] == ["", "crash loop", ""]
    # What was said of a start takes no time and hides none.
    lines = [json.loads(line) for line in (tmp_path / NAME).read_text().split("\n") if line]
    account = read_goodput(tmp_path / NAME)
    assert account.total == pytest.approx(lines[-1]["time"] - lines[0]["time"], abs=0.1)
    assert train(config, tmp_path).step == 6
