"""`llama-jax plan compare` judges real runs, and plans beside them, under each law."""

import json

import pytest

from llama_jax.cli.main import main
from llama_jax.scaling.laws import Allocation
from llama_jax.scaling.published import BESIROGLU
from llama_jax.scaling.real_runs import RealRun, compare
from llama_jax.scaling.repeated import DataLimit


def judged(capsys, *arguments):
    assert main(["plan", "compare", *arguments, "--json"]) == 0
    laws = json.loads(capsys.readouterr().out)["laws"]
    return {law["law"]: {run["name"]: run for run in law["runs"]} for law in laws}


def test_gpt_3_was_trained_too_little_and_llama_7b_pays_where_it_is_served(capsys):
    runs = judged(capsys)["besiroglu"]
    assert runs["GPT-3 175B"]["verdict"].startswith("under")
    assert runs["GPT-3 175B"]["served_tokens_break_even"] is None
    assert runs["Chinchilla 70B"]["verdict"] == "right"
    llama = runs["LLaMA-1 7B"]
    assert llama["verdict"].startswith("over")
    assert 1e11 < llama["served_tokens_break_even"] < 1e12 < llama["served_tokens_that_justify"]
    assert all(run["nats_above_best"] >= 0 for run in runs.values())


def test_each_judgement_has_the_interval_of_its_law(capsys):
    laws = judged(capsys)
    llama = laws["besiroglu"]["LLaMA-1 7B"]
    for name in (
        "best_params",
        "nats_above_best",
        "served_tokens_break_even",
        "served_tokens_that_justify",
    ):
        ends = llama[f"{name}_interval"]
        assert ends["low"] < llama[name] < ends["high"]
        assert ends["level"] == 0.95
    # LLaMA-1's 65B may never pay: an end without a number.
    for name, at_most in (("that_justify", 3e12), ("break_even", 1e12)):
        ends = laws["besiroglu"]["LLaMA-1 65B"][f"served_tokens_{name}_interval"]
        assert ends["low"] is None
        assert 1e11 < ends["high"] < at_most
    exponent = laws["chinchilla-3"]["LLaMA-1 7B"]
    assert exponent["best_params_interval"]["level"] == 0.80
    assert exponent["nats_above_best_interval"] is None


def test_a_law_without_a_loss_tells_the_best_size_alone(capsys):
    run = judged(capsys, "--law", "llama3")["llama3"]["GPT-3 175B"]
    assert run["verdict"].startswith("under")
    assert run["best_params"] < 1e11
    assert run["loss_nats_per_token"] is None
    assert run["served_tokens_break_even"] is None


def test_plans_stand_beside_the_runs_under_every_law(capsys):
    laws = judged(capsys, "--flops", "1e23", "--serve-tokens", "1e13")
    for runs in laws.values():
        assert list(runs)[:2] == ["by besiroglu", "by chinchilla-3"]
        assert "LLaMA-3 8B" in runs
    own, other = (laws[name]["by besiroglu"] for name in ("besiroglu", "chinchilla-3"))
    assert own["train_flops"] == pytest.approx(1e23)
    # Each law's served choice is justified by the demand it was made for, by that law alone.
    assert own["served_tokens_that_justify"] == pytest.approx(1e13, rel=1e-6)
    assert other["served_tokens_that_justify"] < 0.5e13


def test_plans_of_data_that_run_out_are_judged_on_such_data_and_real_runs_are_not(capsys):
    plain = judged(capsys, "--law", "besiroglu")["besiroglu"]["LLaMA-1 7B"]
    runs = judged(capsys, "--law", "besiroglu", "--flops", "1e22", "--unique-tokens", "1e10")
    assert runs["besiroglu"]["LLaMA-1 7B"] == plain
    plan = runs["besiroglu"]["by besiroglu"]
    assert plan["verdict"] == "right"
    assert plan["nats_above_best"] == pytest.approx(0, abs=1e-9)
    limit = DataLimit(unique_tokens=1e10)
    at = Allocation(plan["params"], plan["tokens"])
    assert plan["loss_nats_per_token"] == pytest.approx(limit.loss(BESIROGLU, *at))


def test_what_stands_on_the_frontier_loses_nothing():
    best = BESIROGLU.optimum(1e22)
    (comparison,) = compare(BESIROGLU, [RealRun(name="best", at=best, source="the law")])
    assert comparison.lost == pytest.approx(0, abs=1e-12)
    assert comparison.best == pytest.approx(best)
    assert comparison.intervals["lost"].low >= 0


def test_people_read_a_table_for_each_law_with_a_loss_and_one_for_the_others(capsys):
    assert main(["plan", "compare", "--flops", "1e23", "--serve-tokens", "1e13"]) == 0
    out = capsys.readouterr().out
    assert "By besiroglu (intervals of 95%)" in out
    assert "By chinchilla-3 (intervals of 80%)" in out
    assert "Best size for the same compute, by laws without a loss" in out
    assert "interval: 80%" in out
    assert "interval: none" in out
    assert out.count("LLaMA-1 7B ") == 3
    assert "18.5B*" in out  # a number is starred, not only the name of its run
    assert "extrapolated" in out


def test_runs_too_far_above_a_laws_data_are_not_judged(capsys, tmp_path):
    import dataclasses

    from llama_jax.recipe import to_json

    about = dataclasses.replace(
        BESIROGLU.about, params_range=(1e6, 1e8), tokens_range=(1e8, 1e10), flops_range=(1e15, 1e19)
    )
    path = tmp_path / "small.json"
    path.write_text(to_json(dataclasses.replace(BESIROGLU, about=about)))
    runs = judged(capsys, "--law", str(path))["small.json"]
    assert runs["GPT-3 175B"]["too_far"]
    assert "best_params" not in runs["GPT-3 175B"]
    assert not runs["LLaMA-1 7B"]["too_far"]
    assert main(["plan", "compare", "--law", str(path)]) == 0
    assert "Too far: over 1,000 times above" in capsys.readouterr().out


def test_a_plan_at_its_own_optimum_is_best_where_nothing_is_served(capsys):
    assert main(["plan", "compare", "--flops", "1e21"]) == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if line.startswith("by besiroglu"))
    assert row.split()[-2:] == ["never", "0"]
    assert row.startswith("by besiroglu 2.78B ")  # a plan's size beside its name, as LLaMA's
    assert "Best at 0: the compute-optimal model itself" in told
    runs = judged(capsys, "--flops", "1e21")["besiroglu"]
    assert runs["by besiroglu"]["served_tokens_that_justify"] == 0


def test_ends_of_a_narrow_interval_are_told_apart(capsys):
    assert main(["plan", "compare", "--law", "chinchilla-3"]) == 0
    told = capsys.readouterr().out
    assert "11.8B-12B" in told and "12B-12B" not in told
