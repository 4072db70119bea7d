"""A sweep tries learning rates on one size, and says which is best and whether one lies beyond."""

import json
import re
from pathlib import Path

import pytest

from llama_jax.cli.main import main
from llama_jax.cli.scaling import sweep
from llama_jax.recipe import load_recipe
from llama_jax.train.replicas import Replica

TINY = Path(__file__).parents[2] / "configs" / "ladders" / "tiny.py"
RATES = ("--learning-rates", "2e-3", "4e-3", "8e-3")


@pytest.fixture
def tried(monkeypatch):
    """Stands in for training: losses by rate, not a number where a run diverges."""
    seen, losses = [], {2e-3: 4.2, 4e-3: 4.0, 8e-3: 4.1, 3e-2: float("nan")}

    def train(config, options):
        seen.append(config)
        return [
            sweep._result(config, Replica(peak_lr=rate, seed=seed), [losses[rate] + seed / 100])
            for rate in options.learning_rates
            for seed in options.seeds
        ]

    monkeypatch.setattr(sweep, "_train", train)
    return seen


def test_the_best_rate_is_told_and_those_that_diverged(tried, capsys):
    assert main(["scaling", "sweep", "demo", *RATES, "3e-2", "--seeds", "0", "1"]) == 0
    told = capsys.readouterr().out
    assert "0.004    4.0050 (4.0000 to 4.0100)" in told
    assert "0.03     no loss, 2 diverged" in told
    assert told.endswith("best 0.004\n")
    assert main(["scaling", "sweep", "demo", *RATES[:3], "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["best"], answer["at_edge"]) == (4e-3, True)


def test_a_rung_is_the_run_that_a_ladder_trains_of_that_size(tried):
    assert main(["scaling", "sweep", str(TINY), "--rung", "2", "--data", "here", *RATES]) == 0
    assert main(["scaling", "sweep", str(TINY), "--rung", "2", "--steps", "50", *RATES]) == 0
    shortest, shorter = tried
    rung = load_recipe(str(TINY), sweep.LadderConfig).rungs[2]
    assert shortest.model == rung.model
    assert shortest.data.directory == "here"
    assert (shortest.train.num_steps, shortest.schedule.decay_steps) == (100, 20)
    assert (shorter.train.num_steps, shorter.schedule.decay_steps) == (50, 10)
    assert shorter.schedule.warmup_steps == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("demo", "--learning-rates", "1e-3", "1e-3"), "must be one or more, all different"),
        (("demo", "--learning-rates", "1e-3", "-1"), "must be positive and finite"),
        (("demo", *RATES, "--at-once", "-2"), "must be zero or more"),
        ((str(TINY), *RATES, "--rung", "9"), r"--rung=9 must be below 4"),
        ((str(TINY), *RATES), "gives a LadderConfig"),
    ],
)
def test_sweeps_that_say_nothing_are_refused(tried, arguments, complaint, capsys):
    assert main(["scaling", "sweep", *arguments]) == 2
    assert re.search(complaint, capsys.readouterr().err)
