"""A spike is told once, noise and a falling loss are not, and kills change no answer."""

import json

import numpy as np
import pytest

from llama_jax.config import GuardConfig
from llama_jax.train.spikes import SpikeGuard, deviations_above
from llama_jax.train.taint import Rewind


def losses(count, seed=0):
    """A loss that falls as a power law, with noise."""
    steps = np.arange(1, count + 1)
    return (2 + 6 * steps**-0.5 + np.random.default_rng(seed).normal(0, 0.03, count)).tolist()


class Told(list):
    def __call__(self, kind, step, text):
        self.append((kind, step, text))


def show(guard, values, first=1):
    for step, value in enumerate(values, start=first):
        guard.see(step, {"loss_nats_per_token": value, "grad_norm": 1.0, "skipped": 0.0})


def test_deviations_are_those_of_a_normal_distribution_and_outliers_do_not_move_them():
    values = np.random.default_rng(0).normal(5, 2, 20_001).tolist()
    assert deviations_above(11.0, values) == pytest.approx(3, abs=0.1)
    spoilt = [1e6] * 3000 + values
    assert deviations_above(11.0, spoilt) == pytest.approx(2.6, abs=0.4)


def test_noise_and_a_falling_loss_are_no_spike():
    told = Told()
    show(SpikeGuard(GuardConfig(), told), losses(3000))
    assert not told


def test_a_spike_is_told_once_with_its_size_and_the_next_after_a_window():
    values, told = losses(1000), Told()
    values[600:610] = [v + 3 for v in values[600:610]]
    values[900] += 3
    show(SpikeGuard(GuardConfig(), told), values)
    assert [(kind, step) for kind, step, _ in told] == [("spike", 601), ("spike", 901)]
    assert told[0][2].startswith("loss 5.") and "the 128 updates before" in told[0][2]


def test_a_gradient_spike_is_told_and_never_rewinds():
    guard = SpikeGuard(GuardConfig(on_spike="rewind"), told := Told())
    show(guard, [3.0] * 100)
    guard.see(101, {"loss_nats_per_token": 3.0, "grad_norm": 5.0, "skipped": 0.0})
    assert [step for _, step, _ in told] == [101]


def test_a_rewind_goes_back_to_before_the_spike_and_over_what_led_to_it():
    guard = SpikeGuard(GuardConfig(on_spike="rewind", rewind_steps=20), Told())
    with pytest.raises(Rewind, match="loss 9") as rewind:
        show(guard, [3.0] * 100 + [9.0])
    assert (rewind.value.since_step, rewind.value.step) == (80, 101)


def test_updates_that_were_skipped_do_not_count():
    guard = SpikeGuard(GuardConfig(), told := Told())
    show(guard, [3.0] * 100)
    guard.see(101, {"loss_nats_per_token": float("nan"), "grad_norm": 1.0, "skipped": 1.0})
    assert not told and len(guard.window["loss_nats_per_token"]) == 100


@pytest.mark.parametrize("cut", [300, 600, 601, 650])
def test_a_guard_that_goes_on_from_a_checkpoint_tells_what_one_without_a_break_does(cut):
    values, straight, broken = losses(800), Told(), Told()
    values[600] += 3
    values[640] += 3  # in the quiet window
    show(SpikeGuard(GuardConfig(), straight), values)
    before = SpikeGuard(GuardConfig(), broken)
    show(before, values[:cut])
    after = SpikeGuard(GuardConfig(), broken, json.loads(json.dumps(before.window)))
    show(after, values[cut:], first=cut + 1)
    assert straight == broken and len(straight) == 1
