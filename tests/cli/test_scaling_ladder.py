"""A ladder trains each size once and cools it down at several lengths; what diverges is named."""

import csv
import dataclasses
import datetime
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from llama_jax.cli.main import main
from llama_jax.cli.scaling.ladder_progress import LadderProgress
from llama_jax.cli.scaling.ladder_runs import ladder_runs
from llama_jax.config import LadderConfig
from llama_jax.flops import count_params
from llama_jax.recipe import load_recipe, to_json
from llama_jax.scaling.published import BESIROGLU
from llama_jax.train.guards import TrainingFailed

TINY = Path(__file__).parents[2] / "configs" / "ladders" / "tiny.py"


class Trainer:
    """Stands in for training: a run's loss is that of a law."""

    def __init__(self, monkeypatch, *, diverges=(), stops_at="", excess=None):
        self.calls, self.diverges, self.stops_at = [], diverges, stops_at
        self.excess = excess or {}  # what a learning rate adds to the loss
        monkeypatch.setattr("llama_jax.train.loop.train", self)
        monkeypatch.setattr("llama_jax.train.beginning.parse_origin", lambda text: text)

    def __call__(self, config, run_dir, origin=None):
        self.calls.append((run_dir.name, config, origin and Path(origin).name))
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.json").write_text(to_json(config))
        if run_dir.name in self.diverges:
            raise TrainingFailed("too many updates were not finite")
        tokens = 1e5 * config.tokens_before(config.train.num_steps)
        loss = BESIROGLU.loss(1e4 * count_params(config.model).total, tokens)
        loss += self.excess.get(config.optimizer.peak_lr, 0.0)
        score = SimpleNamespace(nats=100 * loss, tokens=100)
        stopped = "SIGTERM" if run_dir.name == self.stops_at else ""
        return SimpleNamespace(held_out={"a": score}, stopped_by=stopped)


def climb(out, *arguments):
    return main(["scaling", "ladder", str(TINY), "--out", str(out), "--resamples", "0", *arguments])


def test_branches_leave_one_plateau_and_the_largest_size_is_predicted(
    monkeypatch, tmp_path, capsys
):
    trainer = Trainer(monkeypatch)
    assert climb(tmp_path, "--json") == 0
    origins = {name: origin for name, _, origin in trainer.calls}
    assert origins["rung0-seed0-plateau80"] is None
    assert origins["rung0-seed0-100"] == "rung0-seed0-plateau80"
    assert origins["rung0-seed0-plateau160"] == "rung0-seed0-plateau80"
    configs = {name: config for name, config, _ in trainer.calls}
    assert configs["rung2-seed0-400"].schedule.decay_steps == 80
    assert configs["rung2-seed0-plateau320"].schedule.decay_steps == 0
    warmups = {config.schedule.warmup_steps for config in configs.values()}
    assert warmups == {8}
    answer = json.loads(capsys.readouterr().out)
    assert answer["runs_fitted"] == 9
    assert [check["run"] for check in answer["predictions"]] == [
        f"rung3-seed0-{steps}" for steps in (100, 200, 400)
    ]
    assert all(abs(check["error"]) < 1e-3 for check in answer["predictions"])
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    with (tmp_path / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12


def test_what_is_held_out_is_predicted_and_dated_before_it_is_trained(
    monkeypatch, tmp_path, capsys
):
    trainer = Trainer(monkeypatch)
    predictions = tmp_path / "predictions.json"

    def train(config, run_dir, origin=None):
        assert predictions.is_file() == run_dir.name.startswith("rung3")
        return trainer(config, run_dir, origin)

    monkeypatch.setattr("llama_jax.train.loop.train", train)
    assert climb(tmp_path) == 0
    (entry,) = json.loads(predictions.read_text())
    assert datetime.datetime.fromisoformat(entry["made"]).tzinfo == datetime.UTC
    names = [f"rung3-seed0-{steps}" for steps in (100, 200, 400)]
    assert (list(entry["predictions"]), entry["trained_before"]) == (names, [])
    told = capsys.readouterr().out
    assert f"{names[0]}, predicted at {entry['made']}: " in told
    assert told.index("predicted at") < told.index("measured")
    # What needs no law stands beside it.
    assert told.count("of the nearest run, 291k parameters") == 3
    # The same law is made once; another one later knows what was trained.
    assert climb(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["predicted_at"] == entry["made"]
    assert json.loads(predictions.read_text()) == [entry]
    Trainer(monkeypatch, excess={1e-3: -0.01})
    assert main([*with_rates(tmp_path)[:3], "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("this law was made after the run was trained") == 3
    first, second = json.loads(predictions.read_text())
    assert first == entry
    assert second["trained_before"] == names


def test_without_a_law_what_is_held_out_is_not_trained(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, diverges=("rung0-seed0-plateau80", "rung1-seed0-plateau80"))
    assert climb(tmp_path) == 2
    told = capsys.readouterr().err
    assert "has 3 usable rows" in told
    assert "The runs held out are not trained: no law predicts them." in told
    assert not any(name.startswith("rung3") for name, *_ in trainer.calls)


def test_seeds_of_a_ladder_tell_its_noise(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch)

    def train(config, run_dir, origin=None):
        outcome = trainer(config, run_dir, origin)
        outcome.held_out["a"].nats *= 1.001 if config.train.seed else 1.0
        return outcome

    monkeypatch.setattr("llama_jax.train.loop.train", train)
    command = with_rates(tmp_path, seeds=(0, 7))
    assert main([*command, "--json"]) == 0
    noise = json.loads(capsys.readouterr().out)["seed_noise"]
    assert noise["pooled_relative"] == pytest.approx(np.log(1.001) / np.sqrt(2))
    assert [cell["runs"] for cell in noise["cells"]] == [2, 2, 2]
    assert main(command) == 0
    assert "standard deviation of seeds: " in capsys.readouterr().out


def test_cheap_runs_come_first_and_each_after_the_one_that_it_goes_on_from(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch)
    assert climb(tmp_path) == 0
    names = [name for name, *_ in trainer.calls]
    assert names.index("rung2-seed0-100") < names.index("rung0-seed0-400")
    for name, _, origin in trainer.calls:
        assert origin is None or names.index(origin) < names.index(name)


def test_seeds_are_those_of_each_size(monkeypatch, tmp_path):
    ladder = load_recipe(str(TINY), LadderConfig)
    first, *others = ladder.rungs
    ladder = dataclasses.replace(ladder, rungs=(dataclasses.replace(first, seeds=(0, 7)), *others))
    recipe = tmp_path / "ladder.json"
    recipe.write_text(to_json(ladder))
    trainer = Trainer(monkeypatch)
    main(["scaling", "ladder", str(recipe), "--out", str(tmp_path / "out"), "--resamples", "0"])
    seeds = {(name.split("-")[0], config.train.seed) for name, config, _ in trainer.calls}
    assert seeds == {("rung0", 0), ("rung0", 7), ("rung1", 0), ("rung2", 0), ("rung3", 0)}
    with (tmp_path / "out" / "runs.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)][:6] == ["0", "7"] * 3


def with_rates(tmp_path, seeds=(0,)):
    """The tiny ladder, its smallest size at three learning rates."""
    ladder = load_recipe(str(TINY), LadderConfig)
    first, *others = ladder.rungs
    first = dataclasses.replace(first, seeds=seeds, other_lrs=(1e-3, 1.6e-2))
    recipe = tmp_path / "ladder.json"
    recipe.write_text(to_json(dataclasses.replace(ladder, rungs=(first, *others))))
    return ["scaling", "ladder", str(recipe), "--out", str(tmp_path / "out"), "--resamples", "0"]


def test_of_several_learning_rates_the_best_counts_and_all_are_told(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, excess={1e-3: 0.2, 1.6e-2: 0.1})
    command = with_rates(tmp_path)
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["runs_fitted"] == 9
    assert len(answer["learning_rates"]) == 3
    for choice in answer["learning_rates"]:
        assert [rate["peak_lr"] for rate in choice["tried"]] == [1e-3, 4e-3, 1.6e-2]
        assert (choice["best"], choice["at_edge"]) == (4e-3, False)
    with (tmp_path / "out" / "runs.csv").open() as file:
        rates = [float(row["peak_lr"]) for row in csv.DictReader(file)]
    assert rates == [4e-3] * 12
    origins = {name: (config.optimizer.peak_lr, origin) for name, config, origin in trainer.calls}
    assert origins["rung0-lr0.016-seed0-100"] == (1.6e-2, "rung0-lr0.016-seed0-plateau80")
    assert main(command) == 0
    assert "best 0.004\n" in capsys.readouterr().out


def test_a_learning_rate_at_which_a_seed_diverged_is_never_the_best(monkeypatch, tmp_path, capsys):
    # It would have the least loss, did the other seed come through.
    diverges = ("rung0-lr0.016-seed7-plateau80",)
    Trainer(monkeypatch, diverges=diverges, excess={1e-3: 0.1, 4e-3: 0.2})
    assert main(with_rates(tmp_path, seeds=(0, 7))) == 0
    told = capsys.readouterr().out
    assert told.count("(1 diverged)") == 3
    assert told.count("; best 0.001, the last one tried on its side") == 3
    assert "left out, diverged: rung0-lr0.016-seed7-100" in told


def test_learning_rates_all_of_which_diverge_leave_the_rest_to_be_fitted(
    monkeypatch, tmp_path, capsys
):
    names = [f"rung0-lr{rate}-seed0-plateau80" for rate in ("0.001", "0.004", "0.016")]
    Trainer(monkeypatch, diverges=names)
    assert main([*with_rates(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["runs_fitted"] == 6
    assert [choice["best"] for choice in answer["learning_rates"]] == [None] * 3


def test_a_stopped_ladder_goes_on_and_a_finished_one_trains_nothing(monkeypatch, tmp_path):
    first = Trainer(monkeypatch, stops_at="rung1-seed0-200")
    assert climb(tmp_path) == 75
    again = Trainer(monkeypatch)
    assert climb(tmp_path) == 0
    assert again.calls[0][0] == "rung1-seed0-200"
    done = {name for name, *_ in first.calls[:-1]}
    assert not done & {name for name, *_ in again.calls}
    finished = Trainer(monkeypatch)
    assert climb(tmp_path) == 0
    assert finished.calls == []


def test_runs_that_diverge_are_named_and_left_out(monkeypatch, tmp_path, capsys):
    trainer = Trainer(monkeypatch, diverges=("rung1-seed0-plateau160",))
    assert climb(tmp_path, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["diverged"] == ["rung1-seed0-200", "rung1-seed0-400"]
    assert answer["runs_fitted"] == 7
    assert "rung1-seed0-plateau320" not in [name for name, *_ in trainer.calls]


def test_without_a_terminal_each_run_is_told_with_what_is_done(monkeypatch, tmp_path, capsys):
    Trainer(monkeypatch, diverges=("rung1-seed0-plateau160",))
    assert climb(tmp_path) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(
        "[1/24] rung0-seed0-plateau80 · 92.3k parameters to 164k tokens · 0% of the FLOPs done"
    )
    assert "rung1-seed0-plateau160 · DIVERGED: too many updates were not finite" in told
    assert any(line.startswith("[24/24]") and "diverged, left out" in line for line in told)


def test_the_table_shows_every_run_and_fits_the_screen(tmp_path):
    runs = ladder_runs(load_recipe(str(TINY), LadderConfig))
    progress = LadderProgress(runs, tmp_path, file=None)
    by_name = {run.name: run for run in runs}
    progress.end(by_name["rung0-seed0-plateau80"], None, "")
    progress.end(by_name["rung0-seed0-100"], 5.4321, "")
    progress.end(by_name["rung1-seed0-plateau80"], None, "it was not finite")
    current = by_name["rung1-seed0-200"]
    progress.begin(current)
    (tmp_path / current.name).mkdir()
    record = {"step": 180, "loss_nats_per_token": 4.5, "tokens": 2048}
    scores = {"step": 180, "heldout/bits_per_byte": 2.5}
    lines = "".join(json.dumps(each) + "\n" for each in (record, scores))
    (tmp_path / current.name / "metrics.jsonl").write_text(lines)

    rows = {cells[0]: cells[1:6] for cells in progress.rows()}
    assert len(rows) == 12
    assert rows["rung0-seed0-100"] == ("92.3k", "205k", "1.1e+11", "done", "5.4321")
    assert rows["rung1-seed0-100"][3] == "DIVERGED"
    assert rows["rung1-seed0-200"][3:] == ("cooling 180/200", "4.500 train")
    assert rows["rung2-seed0-400"][3:] == ("", "")
    assert "rung3-seed0-400 (held out)" in rows

    screen = Console(width=100, height=14, file=io.StringIO())
    screen.print(progress.table(screen.height))
    shown = screen.file.getvalue()
    assert len(shown.splitlines()) <= 14
    assert "cooling 180/200" in shown
    assert "rung1-seed0-plateau80 diverged: it was not finite" in shown


def test_the_work_of_a_ladder_is_that_of_its_plateaus_and_cooldowns():
    ladder = load_recipe(str(TINY), LadderConfig)
    runs = [run for run in ladder_runs(ladder) if run.name.startswith("rung0")]
    a_token = 6 * count_params(ladder.rungs[0].model).total
    # 320 updates of the longest plateau, and cooldowns of 20, 40 and 80, of 16 rows each.
    assert sum(run.flops for run in runs) == a_token * (320 + 20 + 40 + 80) * 16 * 128


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"held_out_rungs": 4}, "must leave some of 4 rungs to fit"),
        ({"decay_fraction": 1.0}, "must be in \\(0, 1\\)"),
    ],
)
def test_ladders_that_cannot_be_climbed_are_refused(change, complaint):
    ladder = load_recipe(str(TINY), LadderConfig)
    fields = {name: getattr(ladder, name) for name in ("name", "base", "rungs")}
    with pytest.raises(ValueError, match=complaint):
        LadderConfig(**fields | change)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_a_size_has_seeds_that_differ(seeds):
    rung = load_recipe(str(TINY), LadderConfig).rungs[0]
    with pytest.raises(ValueError, match="all different"):
        dataclasses.replace(rung, seeds=seeds)


@pytest.mark.parametrize("rates", [(4e-3,), (1e-3, 1e-3), (-1.0,)])
def test_learning_rates_are_positive_and_differ(rates):
    rung = load_recipe(str(TINY), LadderConfig).rungs[0]
    with pytest.raises(ValueError, match=r"rung\.other_lrs"):
        dataclasses.replace(rung, other_lrs=rates)


def test_the_tiny_ladder_rises_and_stays_tiny():
    ladder = load_recipe(str(TINY), LadderConfig)
    sizes = [count_params(rung.model).total for rung in ladder.rungs]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < 0.6e6


def test_the_longer_ladder_holds_out_what_is_larger_and_longer_than_all_it_fits():
    ladder = load_recipe(str(TINY.with_name("longer.py")), LadderConfig)
    cooled = [run for run in ladder_runs(ladder) if run.cooled]
    fitted = [run for run in cooled if not run.held_out]
    (held_out,) = (run for run in cooled if run.held_out)
    assert held_out.params > max(run.params for run in fitted)
    assert held_out.tokens > max(run.tokens for run in fitted)
    lengths = {}
    for run in fitted:
        lengths.setdefault(run.params, set()).add(run.tokens)
    assert len(lengths) == 6 and min(map(len, lengths.values())) >= 2
    # One rate for all sizes, which the parameterisation turns into that of each.
    assert {run.config.optimizer.peak_lr for run in cooled} == {3e-3}
    assert all(run.config.parameterisation == ladder.base.parameterisation for run in cooled)
    assert ladder.base.parameterisation is not None
    assert 5e14 < sum(run.flops for run in ladder_runs(ladder)) < 6e14  # two hours of two cores
