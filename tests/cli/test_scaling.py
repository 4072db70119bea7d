"""`llama-jax scaling fit` reads a table, fits it, and hands the law to `plan`."""

import json
import re

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.scaling.published import BESIROGLU
from llama_jax.scaling.repeated import DataLimit


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["N,D,loss"] + [
        f"{N},{D},{BESIROGLU.loss(N, D) * np.exp(0.002 * rng.normal())}"
        for N in np.logspace(7, 10, 8)
        for D in np.logspace(9, 11.5, 6)
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def grid(tmp_path, form):
    """Losses of a law, with each token read four times, where a form can be fitted."""
    budgets = [
        (BESIROGLU.optimum(flops).params * np.exp(shift), flops)
        for flops in (1e18, 1e19, 1e20, 1e21)
        for shift in np.linspace(-1.2, 1.2, 9)
    ]
    points = [(N, flops / 6 / N) for N, flops in budgets]
    if form == "envelope":
        points = [(N, D) for N in np.logspace(7.5, 9.5, 9) for D in np.logspace(9, 11.5, 6)]
    lines = ["N,D,U,loss"] + [
        f"{N},{D},{D / 4},{DataLimit(unique_tokens=D / 4).loss(BESIROGLU, N, D)}" for N, D in points
    ]
    (tmp_path / f"{form}.csv").write_text("\n".join(lines))
    return tmp_path / f"{form}.csv"


def with_held_out():
    lines = ["params,tokens,loss,held_out"]
    for N in (1e6, 3e6, 1e7, 3e7):
        for D in (1e8, 4e8, 1.6e9):
            # Were they fitted too, the law would follow them.
            loss = BESIROGLU.loss(N, D) * (1.01 if N == 3e7 else 1)
            lines.append(f"{N},{D},{loss},{N == 3e7}")
    return lines


def fit(capsys, path, *arguments):
    assert main(["scaling", "fit", str(path), *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_fitted_law_plans(capsys, runs, tmp_path):
    law = tmp_path / "law.json"
    answer = fit(capsys, runs, "--resamples", "100", "--out", str(law), "--predict", "7e9:1e12")
    predicted = answer["estimates"]["loss(7e+09, 1e+12)"]
    assert predicted["value"] == pytest.approx(BESIROGLU.loss(7e9, 1e12), rel=1e-2)
    assert predicted["interval_95"][0] < predicted["value"] < predicted["interval_95"][1]
    assert main(["plan", "--flops", "1e21", "--law", str(law), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["laws"][0]
    assert plan["params"] == pytest.approx(BESIROGLU.optimum(1e21).params, rel=0.5)
    ends = plan["params_interval"]
    assert ends["low"] < plan["params"] < ends["high"]


@pytest.mark.parametrize("form", ["isoflop", "envelope", "data-constrained"])
def test_every_form_writes_a_law_that_plans(capsys, tmp_path, form):
    table, law = grid(tmp_path, form), tmp_path / f"{form}.json"
    fit(capsys, table, "--form", form, "--resamples", "0", "--out", str(law))
    budget = ["--flops", "1e20", "--unique-tokens", "1e9", "--law", str(law)]
    assert main(["plan", *budget, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["laws"][0]
    assert plan["law"] == law.name
    assert plan["params"] > 0
    if form == "data-constrained":
        assert main(["plan", *budget]) == 0
        assert "as in a fit to 36 runs, 36 of which repeat" in capsys.readouterr().out


def test_runs_without_a_limit_are_told_so_and_their_limit_is_0(capsys, tmp_path):
    lines = ["N,D,loss"] + [
        f"{N},{D},{40 * D**-0.18 + 300 * N**-0.6}"
        for N in (3e5, 1e6, 3e6, 1e7)
        for D in (1e5, 3e5, 1e6)
    ]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    command = ["scaling", "fit", str(tmp_path / "runs.csv"), "--resamples", "20"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert re.search(r"^E +0 *$", told, re.MULTILINE)  # without error and interval
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimates"]["E"] == {"value": 0.0}
    command[1] = "report"
    page = tmp_path / "report.html"
    assert main([*command, "--out", str(page)]) == 0
    assert "<td>E</td><td>0</td><td></td><td></td>" in page.read_text()
    for text in (told, page.read_text()):
        assert "the runs show no limit of the loss" in text


def test_what_was_left_out_is_said(capsys, runs):
    answer = fit(capsys, runs, "--drop-highest", "3", "--resamples", "0")
    assert answer["runs"] == 45
    assert len(answer["left_out"]) == 3
    assert all("among the 3 highest losses" in line for line in answer["left_out"])
    assert "interval_95" not in answer["estimates"]["alpha"]


@pytest.mark.parametrize(
    "form", ["chinchilla", "overtrain", "envelope", "isoflop", "data-constrained"]
)
def test_every_form_draws_into_the_file_that_it_names(capsys, tmp_path, form):
    table, picture = grid(tmp_path, form), tmp_path / f"{form}.png"
    arguments = [] if form == "envelope" else ["--resamples", "20"]
    fit(capsys, table, "--form", form, "--picture", str(picture), *arguments)
    assert picture.stat().st_size > 10_000


def test_an_option_that_a_form_has_no_use_for_is_refused(capsys, tmp_path):
    for form in ("envelope", "isoflop"):
        command = ["scaling", "fit", str(grid(tmp_path, form)), "--form", form]
        assert main([*command, "--predict", "1e9:1e10"]) == 2
        assert "--predict needs a loss" in capsys.readouterr().err
    command = ["scaling", "fit", str(grid(tmp_path, "envelope")), "--form", "envelope"]
    assert main([*command, "--resamples", "100"]) == 2
    assert "--resamples=100 is not for --form envelope" in capsys.readouterr().err
    assert main([*command, "--resamples", "0"]) == 0
    assert "no interval: without some of its runs" in capsys.readouterr().out
    table = str(grid(tmp_path, "chinchilla"))
    assert main(["scaling", "fit", table, "--unique-tokens-column", "U"]) == 2
    assert "--unique-tokens-column is for --form data-constrained" in capsys.readouterr().err
    assert main(["scaling", "fit", table, "--predict", "1e9:1e10:1e9"]) == 2
    assert "must be PARAMS:TOKENS, all positive" in capsys.readouterr().err


def test_repeated_tokens_are_predicted_with_their_interval(capsys, tmp_path):
    arguments = ["--form", "data-constrained", "--resamples", "50"]
    points = ["--predict", "1e9:1e11:2e10", "1e9:1e11"]
    answer = fit(capsys, grid(tmp_path, "data-constrained"), *arguments, *points)
    repeated = answer["estimates"]["loss(1e+09, 1e+11, 2e+10)"]
    fresh = answer["estimates"]["loss(1e+09, 1e+11)"]
    said = DataLimit(unique_tokens=2e10).loss(BESIROGLU, 1e9, 1e11)
    assert repeated["value"] == pytest.approx(said, rel=0.01)
    assert repeated["interval_95"][0] <= repeated["value"] <= repeated["interval_95"][1]
    assert fresh["value"] < repeated["value"]


def test_resamples_without_a_minimum_are_counted(capsys, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["N,D,loss"]
    for flops in (1e18, 1e19, 1e20):
        for shift in np.linspace(-0.5, 0.5, 5):
            N = BESIROGLU.optimum(flops).params * np.exp(shift)
            loss = BESIROGLU.loss(N, flops / 6 / N) * np.exp(0.002 * rng.normal())
            lines.append(f"{N},{flops / 6 / N},{loss}")
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    command = ["scaling", "fit", str(tmp_path / "runs.csv"), "--form", "isoflop"]
    assert main([*command, "--resamples", "400"]) == 0
    told = re.search(
        r"([0-9.]+)% of the resamples are not in the interval", capsys.readouterr().out
    )
    assert 5 < float(told[1]) < 95
    assert main([*command, "--resamples", "400", "--json"]) == 0
    lost = json.loads(capsys.readouterr().out)["share_of_resamples_lost"]
    assert lost == pytest.approx(float(told[1]) / 100, abs=1e-3)


def test_what_a_table_holds_out_is_predicted_and_not_fitted(capsys, tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(with_held_out()))
    command = ["scaling", "fit", str(table), "--resamples", "0"]
    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "chinchilla, 9 runs; 3 that the table holds out are not fitted" in told
    assert told.count("(-0.99%)") == 3
    # Of 30M parameters on 100M tokens, 10M on as many is the nearest that was fitted.
    assert "of the nearest run, 10M parameters, 100M tokens" in told
    answer = fit(capsys, table, "--resamples", "0")
    assert (answer["runs"], answer["held_out"]) == (9, 3)
    first, *_ = answer["predictions"]
    nearest = BESIROGLU.loss(1e7, 1e8)
    assert first["nearest"]["loss"] == pytest.approx(nearest)
    assert first["nearest"]["error"] == pytest.approx(nearest / first["measured"] - 1)
    assert first["best"]["loss"] == pytest.approx(BESIROGLU.loss(1e7, 1.6e9))
    # Asked for by name they are fitted.
    answer = fit(capsys, table, "--resamples", "0", "--where", "held_out=False")
    assert (answer["runs"], answer["held_out"]) == (9, 0)


def test_seeds_are_drawn_together_and_tell_the_noise(capsys, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["N,D,loss,seed"]
    for N in (1e6, 3e6, 1e7, 3e7):
        for D in (1e8, 4e8, 1.6e9):
            cell = BESIROGLU.loss(N, D) * np.exp(0.02 * rng.normal())  # what the law misses
            lines += [f"{N},{D},{cell * np.exp(0.001 * rng.normal())},{seed}" for seed in range(4)]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    answer = fit(capsys, tmp_path / "runs.csv", "--resamples", "200")
    assert answer["seed_noise"]["pooled_relative"] == pytest.approx(0.001, rel=0.3)
    assert len(answer["seed_noise"]["cells"]) == 12
    # As runs of their own, 48 of them would halve the intervals.
    (tmp_path / "once.csv").write_text("\n".join([lines[0], *lines[1::4]]))
    once = fit(capsys, tmp_path / "once.csv", "--resamples", "200")
    assert once["seed_noise"] is None
    together, alone = (
        np.diff(each["estimates"]["beta"]["interval_95"])[0] for each in (answer, once)
    )
    assert together == pytest.approx(alone, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fit", "missing.csv"], "there is no such file"),
        (["fti", "runs.csv"], "is no command. There are: fit, ladder, sweep, report"),
        (["fit", "RUNS", "--resamples", "3"], "--resamples=3 must be 20 or more"),
        (["fit", "RUNS", "--drop-highest", "60"], "--drop-highest=60 must leave some"),
        (["fit", "RUNS", "--loss-column", "los"], "no column 'los'. Did you mean loss?"),
        (["fit", "RUNS", "--form", "data-constrained"], "whose tokens exceed their unique"),
        (["fit", "RUNS", "--predict", "7e9"], "must be PARAMS:TOKENS"),
        (["fit", "RUNS", "--where", "N"], "must be COLUMN=VALUE"),
        (["fit", "RUNS", "--out", "absent/law.json"], "--out=absent/law.json: there is no folder"),
        (["fit", "RUNS", "--picture", "absent/fit.png"], "there is no folder absent"),
        (["fit", "RUNS", "--out", "."], "--out=. is a folder"),
    ],
)
def test_what_cannot_be_fitted_is_refused(capsys, runs, arguments, complaint):
    assert main(["scaling", *(str(runs) if a == "RUNS" else a for a in arguments)]) == 2
    assert complaint in capsys.readouterr().err


def test_data_constrained_prints_decays(capsys, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["params,tokens,unique_tokens,loss"]
    for N in (1e8, 1e9, 5e9):
        for U in (1e9, 1e10):
            for epochs in (1, 4, 20):
                loss = BESIROGLU.loss(N, U * epochs**0.8) * np.exp(0.001 * rng.normal())
                lines.append(f"{N},{U * epochs},{U},{loss}")
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    answer = fit(capsys, tmp_path / "runs.csv", "--form", "data-constrained", "--resamples", "0")
    assert answer["runs_that_repeat"] == 12
    assert answer["estimates"]["R_D*"]["value"] > 1


def test_a_report_of_a_ladder_predicts_what_was_held_out(capsys, tmp_path):
    (tmp_path / "runs.csv").write_text("\n".join(with_held_out()))
    page = tmp_path / "report.html"
    command = ["scaling", "report", str(tmp_path / "runs.csv"), "--out", str(page)]
    assert main([*command, "--resamples", "0"]) == 0
    text = page.read_text()
    assert "Scaling law of 9 runs" in text
    assert text.count("-0.99%") == 3
    assert text.count("data:image/png;base64,") >= 2


@pytest.mark.parametrize("form", ["isoflop", "envelope", "overtrain", "data-constrained"])
def test_a_report_is_of_every_form(capsys, tmp_path, form):
    page = tmp_path / "report.html"
    command = ["scaling", "report", str(grid(tmp_path, form)), "--out", str(page), "--form", form]
    assert main([*command, "--resamples", "0"]) == 0
    text = page.read_text()
    assert "params_exponent" in text or "R_D*" in text
    assert text.count("data:image/png;base64,") == 1
    assert ("measured over fitted" in text) == (form in ("overtrain", "data-constrained"))


def test_a_table_of_bytes_is_named(capsys, tmp_path):
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe\x00N,D")
    for command in ("fit", "report"):
        arguments = [command, str(tmp_path / "runs.csv"), "--out", str(tmp_path / "new")]
        assert main(["scaling", *arguments]) == 2
        assert "runs.csv' is no CSV" in capsys.readouterr().err


def test_a_report_is_one_page_with_everything_in_it(capsys, runs, tmp_path):
    page = tmp_path / "pages" / "report.html"
    command = ["scaling", "report", str(runs), "--out", str(page), "--drop-highest", "2"]
    assert main([*command, "--resamples", "50", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(page) and len(told["left_out"]) == 2
    assert {"A", "B", "E", "alpha", "beta"} <= told["law"].keys()
    text = page.read_text()
    assert text.count("data:image/png;base64,") >= 1
    assert "http" not in text
    assert text.count("among the 2 highest losses") == 2
    assert text.count("<tr>") > 46
    assert main(command) == 2
    assert "exists; name a new file" in capsys.readouterr().err
