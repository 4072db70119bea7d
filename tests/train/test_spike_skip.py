"""An update that spikes is passed over: by the same rule everywhere, whatever was killed when."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from llama_jax.config import AdamW, CheckpointConfig, EvaluateConfig, GuardConfig
from llama_jax.observe.incidents import read_incidents
from llama_jax.observe.writers import read_metrics
from llama_jax.train.ledger import UPDATES_AHEAD
from llama_jax.train.loop import train
from llama_jax.train.spike_skip import SpikeSkip
from llama_jax.train.spikes import ceiling, deviations_above
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config

RULE = GuardConfig(on_spike="skip", spike_window=8, spike_deviations=3.0)


class Told(list):
    def __call__(self, kind, step, text):
        self.append((kind, step, text))


def show(skip, first, last, **changed):
    for step in range(first, last + 1):
        rng = np.random.default_rng(step)
        numbers = {"loss_nats_per_token": rng.normal(3, 0.1), "grad_norm": rng.normal(1, 0.1)}
        skip.see(step, numbers | {"skipped": 0.0} | changed)


def test_a_ceiling_is_so_many_deviations_above_the_median():
    values = np.random.default_rng(0).normal(5, 2, 101).tolist()
    assert deviations_above(ceiling(values, 7.0), values) == pytest.approx(7.0)


def test_nothing_is_passed_over_before_half_a_window_is_known():
    skip = SpikeSkip(RULE, Told())
    show(skip, 1, 4)
    assert np.isinf(skip.ceilings(4 + UPDATES_AHEAD)).all()
    assert np.isfinite(skip.ceilings(5 + UPDATES_AHEAD)).all()


def test_ceilings_do_not_depend_on_how_much_the_host_has_read():
    late, early = SpikeSkip(RULE, Told()), SpikeSkip(RULE, Told())
    show(late, 1, 37)
    show(early, 1, 39)  # all that were made, as after a checkpoint
    np.testing.assert_array_equal(late.ceilings(40), early.ceilings(40))
    again = SpikeSkip(RULE, Told(), json.loads(json.dumps(early.window)))
    np.testing.assert_array_equal(again.ceilings(40), early.ceilings(40))
    show(early, 40, 40)
    assert (early.ceilings(43)[0] != late.ceilings(40)[0]).any()


def test_what_was_passed_over_is_told_and_counted_and_raises_no_ceiling():
    skip = SpikeSkip(RULE, told := Told())
    show(skip, 1, 40)
    before = skip.ceilings(44)
    show(skip, 41, 41, loss_nats_per_token=9.0, skipped=1.0)
    show(skip, 42, 42, loss_nats_per_token=float("nan"), skipped=1.0)  # no spike
    np.testing.assert_array_equal(skip.ceilings(44), before)
    [(kind, step, text)] = told
    assert (kind, step) == ("spike", 41) and text.startswith("loss 9 (at most 3.")
    assert skip.metrics == {"skipped_spikes": 1.0}
    assert SpikeSkip(RULE, told, skip.window).metrics == skip.metrics


def last_count(run):
    rows = read_metrics(run / "metrics.jsonl")
    return [row["skipped_spikes"] for row in rows if "skipped_spikes" in row][-1]


def test_a_run_that_goes_on_anywhere_passes_over_what_the_straight_one_does(
    corpus, tmp_path, one_device
):
    # So narrow that the noise of a short run has some, and so slow that they do not grow.
    rule = dataclasses.replace(RULE, spike_deviations=1.0)
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=30,
        train__max_skipped_updates=30,
        optimizer=AdamW(peak_lr=1e-3),
        guards=rule,
        checkpoint=CheckpointConfig(every_steps=7, keep_last=9),
        evaluate=EvaluateConfig(num_batches=1),
    )
    straight, again = tmp_path / "straight", tmp_path / "again"
    train(config, straight)
    skipped = [incident.step for incident in read_incidents(straight)]
    assert 0 < len([step for step in skipped if step > 14]) < 16
    assert last_count(straight) == len(skipped)

    shutil.copytree(straight / "checkpoints/14", again / "checkpoints/14")
    shutil.copy(straight / "config.json", again)
    # It saves at other updates, and so reads the numbers of others early.
    train(dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=5)), again)
    assert [i.step for i in read_incidents(again)] == [s for s in skipped if s > 14]
    assert_equal(*(saved_arrays(run, config, 30) for run in (straight, again)))
    assert last_count(again) == len(skipped)
