"""A run goes back to where it is trusted, and passes over the data it was told to."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest

from llama_jax import recipe
from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import choose_step
from llama_jax.config import CheckpointConfig, EvaluateConfig, GuardConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.observe.goodput import NAME, read_goodput, read_starts
from llama_jax.observe.incidents import read_incidents
from llama_jax.train.beginning import Beginning, parse_origin
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.history import documents_seen, samples_at_step, samples_seen
from llama_jax.train.loop import train
from llama_jax.train.spikes import SpikeGuard
from llama_jax.train.taint import Rewind, Taint, add_taint, mark_applied, read_taints
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config


@pytest.fixture
def config(corpus):
    return tiny_config(
        data__directory=str(corpus),
        train__batch_ramp=((16, 16),),
        checkpoint=CheckpointConfig(every_steps=5, keep_last=9),
        evaluate=EvaluateConfig(num_batches=1),
    )


@pytest.fixture
def spike_once(monkeypatch):
    """Has update 12 spike, the first time that it is made."""
    really, spiked = SpikeGuard.see, []

    def see(self, step, metrics):
        really(self, step, metrics)
        if step == 12 and not spiked:
            spiked.append(step)
            raise Rewind(10, 12, "loss 99")

    monkeypatch.setattr(SpikeGuard, "see", see)


def test_a_rewind_is_the_run_that_a_person_had_go_back(
    config, tmp_path, spike_once, one_device, capsys
):
    itself, told = tmp_path / "itself", tmp_path / "told"
    outcome = train(config, itself)
    # Over the rows of updates 11 and 12, and as many updates as without them.
    passed = [range(80), range(96, 16 * 8 + 16 + 4 * 16)]
    assert samples_seen(itself) == passed and outcome.tokens == (16 * 8 + 4 * 16) * 16
    dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
    seen = {d for span in passed for d in dataset.documents_of(span.start, len(span))}
    assert set(documents_seen(itself)) == seen
    assert [incident.kind for incident in read_incidents(itself)] == ["taint"]
    assert [start.step for start in read_starts(itself / NAME)] == [0, 10]
    assert read_goodput(itself / NAME).seconds["repeated"] > 0

    train(config, told)  # does not spike: that was once
    whole = saved_arrays(told, config, 20)
    assert main(["taint", str(told), "--since", "13", "--pass-over", "9"]) == 2
    capsys.readouterr()
    assert main(["taint", str(told), "--since", "10", "--pass-over", "2", "--json"]) == 0
    noted = json.loads(capsys.readouterr().out)
    assert (noted["run_dir"], noted["since_step"], noted["passed_rows"]) == (str(told), 10, 16)
    shutil.copytree(told / "checkpoints/10", told / "kept")
    train(config, told)
    assert samples_seen(told) == passed
    assert_equal(saved_arrays(itself, config, 20), saved_arrays(told, config, 20))
    assert (
        whole["params.embed.table"] != saved_arrays(told, config, 20)["params.embed.table"]
    ).any()
    names = {path.name for path in (told / "checkpoints").iterdir()}
    assert names == {"5", "10", "15", "20", "15.tainted", "20.tainted"}
    [taint] = read_taints(told)
    assert taint.applied and (taint.since_step, taint.passed_rows, taint.by) == (10, 16, "person")


def test_a_run_that_spikes_for_ever_ends(config, tmp_path, monkeypatch, one_device):
    def see(self, step, metrics):
        if step == 3:
            raise Rewind(2, 3, "loss 99")

    monkeypatch.setattr(SpikeGuard, "see", see)
    config = dataclasses.replace(config, guards=GuardConfig(max_rewinds=1))
    with pytest.raises(TrainingFailed, match=r"step 3: loss 99\. The run has gone back 1 times"):
        train(config, tmp_path / "run")


def test_samples_are_counted_over_what_is_passed_in_both_directions(config):
    begin = Beginning(step=10, samples=100, passed={5: 1000, 10: 7, 17: 50})
    assert begin.samples_at(10, config) == 100
    assert begin.samples_at(11, config) == 100 + 7 + 8
    assert begin.samples_of(11, config) == range(107, 115)
    assert begin.samples_of(18, config) == range(100 + 7 + 48 + 16 + 50, 100 + 7 + 48 + 50 + 32)
    assert begin.samples_at(5, config) == 100 - 40 - 1000
    assert begin.samples_of(6, config) == range(60, 68)


def test_nobody_reads_what_is_not_trusted_before_the_run_has_gone_back(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(recipe.to_json(config))
    with Checkpointer(run / "checkpoints", CheckpointConfig(keep_last=9)) as checkpointer:
        for step in (5, 10, 15):
            meta = {"step": step, "samples": 8 * step, "first_sample": 0}
            checkpointer.save(step, {"x": jnp.zeros(2)}, meta)
        checkpointer.wait()
        assert main(["taint", str(run), "--since", "10", "--pass-over", "2"]) == 0
        assert choose_step(checkpointer, run, config, None) == 10  # eval, generate and convert
        with pytest.raises(ValueError, match=r"--step=15: .*; there are 5, 10, for nothing after"):
            choose_step(checkpointer, run, config, 15)
        assert parse_origin(str(run)).step == 10
        with pytest.raises(ValueError, match=r"there are: 5, 10 \(nothing after update 10 is trus"):
            parse_origin(f"{run}@15")
        # What an update read before the taint, and what it will read after it.
        assert samples_at_step(run, 9) == range(64, 72)
        assert samples_at_step(run, 11) == range(96, 104)
        mark_applied(run)
        assert choose_step(checkpointer, run, config, None) == 15
        add_taint(run, Taint(since_step=3, passed_rows=0, reason="bad memory", by="person"))
        with pytest.raises(ValueError, match=r"no checkpoint to use, for nothing .*bad memory"):
            choose_step(checkpointer, run, config, None)
        with pytest.raises(ValueError, match=r"there are: none \(nothing after update 3"):
            parse_origin(str(run))


def test_what_is_told_anew_from_an_earlier_step_forgets_what_later_ones_passed_over(tmp_path):
    def taint(since, rows):
        return Taint(since_step=since, passed_rows=rows, reason="", by="person")

    add_taint(tmp_path, taint(20, 8))
    mark_applied(tmp_path)
    add_taint(tmp_path, taint(10, 0))  # the same rows come again, and are passed over again
    assert [entry.passed_rows for entry in read_taints(tmp_path)] == [8, 0]
    add_taint(tmp_path, taint(10, 16))
    assert [entry.passed_rows for entry in read_taints(tmp_path)] == [0, 0, 16]
    assert [entry.applied for entry in read_taints(tmp_path)] == [True, False, False]
    (tmp_path / "taint.json").write_text("[{}]")
    with pytest.raises(ValueError, match="cannot be read"):
        read_taints(tmp_path)
