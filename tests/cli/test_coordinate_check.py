"""The coordinate check compares a recipe with and without its parameterisation, size by size."""

import json
import re

import pytest

from llama_jax.cli.main import main
from llama_jax.cli.scaling import coordinate_check
from llama_jax.config import CompleteP
from llama_jax.scaling.width_pictures import plot_transfer

PLACES = {"embedding": {"magnitudes": [0.02, 0.02], "exponent": 0.0}}


def check(*arguments):
    return main(["scaling", "coordinate-check", "demo", *arguments])


def test_a_recipe_without_one_is_compared_with_completep_of_its_own_sizes(
    monkeypatch, tmp_path, capsys
):
    seen = []

    def magnitudes(config, axis, sizes):
        seen.append((config.parameterisation, axis, sizes, config.train.num_steps))
        return PLACES

    monkeypatch.setattr(coordinate_check, "_magnitudes", magnitudes)
    picture = tmp_path / "check.png"
    assert check("--widths", "256", "64", "--steps", "3", "--json", "--picture", str(picture)) == 0
    base = CompleteP(base_embed_dim=128, base_head_dim=32, base_num_layers=4)
    assert seen == [(None, "widths", (64, 256), 3), (base, "widths", (64, 256), 3)]
    answer = json.loads(capsys.readouterr().out)
    assert answer["CompleteP"] == answer["standard"] == PLACES
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--widths", "64"), r"--widths=\(64,\) must be two sizes or more"),
        (("--widths", "64", "128", "--depths", "2", "4"), "give one of the two"),
        (("--depths", "2", "4", "--steps", "0"), "must be positive"),
    ],
)
def test_checks_that_say_nothing_are_refused(arguments, complaint, capsys):
    assert check(*arguments) == 2
    assert re.search(complaint, capsys.readouterr().err)


def test_a_run_that_diverged_leaves_its_curve_and_not_the_picture(tmp_path):
    losses = {("standard", 32, rate): 5 + rate for rate in (0.1, 0.2)}
    losses |= {("standard", 64, 0.1): 4.0, ("standard", 64, 0.2): float("nan")}
    losses |= {("muP", *key[1:]): loss for key, loss in losses.items()}
    plot_transfer(losses, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
