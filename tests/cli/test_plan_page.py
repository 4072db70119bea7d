"""What people read of a plan: every doubt is told, and no digit is lost."""

import dataclasses

import pytest

from llama_jax.cli.main import main
from llama_jax.recipe import to_json
from llama_jax.scaling.published import BESIROGLU


@pytest.fixture(autouse=True)
def wide_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


def page(capsys, *arguments):
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_tables_star_what_lies_beyond_a_laws_data_and_say_what_a_star_is(capsys):
    legend = "extrapolated"
    inside = page(capsys, "--flops", "1.5e19", "--law", "besiroglu")
    assert "*" not in inside
    assert legend not in inside
    # Only the suggestions for batch and learning rate are beyond their laws' data.
    rate = page(capsys, "--flops", "1e21", "--law", "besiroglu")
    assert "2.78B " in rate
    assert legend in rate
    beyond = page(capsys, "--flops", "1e25", "--serve-tokens", "1e13")
    assert "besiroglu*" in beyond
    assert legend in beyond


def test_every_number_that_comes_of_a_starred_one_is_starred(capsys):
    out = page(
        capsys, "--params", "7e9", "--serve-tokens", "1e13", "--law", "besiroglu",
        "--usd-per-chip-hour", "2",
    )  # fmt: skip
    served = next(line for line in out.splitlines() if line.startswith("besiroglu"))
    assert "*" not in served  # in the law's own data: 7B on 144B
    costs = out[out.index("Of this size, the cheapest") :]
    row = next(line for line in costs.splitlines() if line.startswith("besiroglu"))
    assert row.count("*") == 6  # tokens, ratio, loss, training, in all, saved
    real = {line.strip().split("  ")[0]: line for line in out[out.index("Nearest") :].splitlines()}
    for name in ("loss", "FLOPs, 6ND", "training", "serving, writing", "in all", "batch"):
        assert "*" in real[name]
    assert "* tokens" in real["size"]
    assert "* parameters" not in real["size"]  # which was asked for


def test_what_a_law_leaves_open_is_said_below_its_table(capsys):
    out = " ".join(page(capsys, "--flops", "1e21", "--serve-tokens", "1e12").split())
    assert "Laws without a loss say nothing of serving: chinchilla-1, chinchilla-2, llama3." in out
    assert "chinchilla-3: its interval is too narrow" in out
    assert "No interval is known of llama3." in out
    assert "Of chinchilla-3 only the frontier's exponent has an interval" in out
    alone = " ".join(
        page(
            capsys, "--flops", "1e21", "--law", "llama3", "--serve-tokens", "1e13",
            "--unique-tokens", "1e10",
        ).split()
    )  # fmt: skip
    assert "say nothing of serving or data that run out, and are not compared: llama3." in alone
    assert "differ" not in alone
    repeated = " ".join(page(capsys, "--flops", "1e21", "--unique-tokens", "1e8").split())
    assert "Repeated tokens lose their worth as in Muennighoff et al. 2023" in repeated
    assert "are left unspent" in repeated


@pytest.mark.parametrize("columns", ["80", "60"])
def test_no_digit_of_a_table_is_cut_off_on_a_narrow_screen(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    arguments = ("--serve-tokens", "1e13", "--unique-tokens", "3e10")
    for command in (("--params", "7e9"), ("--flops", "1e22"), ("compare", "--flops", "1e22")):
        assert "\N{HORIZONTAL ELLIPSIS}" not in page(capsys, *command, *arguments)


def test_a_law_without_a_limit_is_refused_as_the_plan_and_told_beside_another(capsys, tmp_path):
    path = tmp_path / "ladder.json"
    about = dataclasses.replace(
        BESIROGLU.about, params_range=(3e5, 5e6), tokens_range=(1e5, 1e6), note="E is about 0"
    )
    path.write_text(to_json(dataclasses.replace(BESIROGLU, about=about, E=1e-87)))
    assert main(["plan", "--flops", "1e21", "--law", str(path)]) == 2
    assert "shows no limit of the loss" in capsys.readouterr().err
    out = " ".join(page(capsys, "--flops", "1e21", "--law", "besiroglu", str(path)).split())
    assert "ladder.json is no plan and is not compared: it shows no limit of the loss" in out
    assert "ladder.json: E is about 0." in out
    assert main(["plan", "compare", "--law", str(path)]) == 2
    assert "ladder.json shows no limit" in capsys.readouterr().err


def test_a_budget_in_another_convention_is_told_in_both(capsys):
    out = page(capsys, "--flops", "1e21", "--flop-convention", "full-attention")
    assert "training FLOPs (6ND; 1e+21 full-attention)" in out
    assert "TFLOP/s (full-attention)" in " ".join(out.split())
