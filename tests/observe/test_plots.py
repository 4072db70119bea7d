"""A loss curve is drawn from the run's folder alone."""

import json

import numpy as np
import pytest
from matplotlib.axes import Axes

from llama_jax import recipe
from llama_jax.observe.plots import plot_loss, smooth

CONFIG = recipe.load_recipe("demo")


def write_run(folder, records):
    (folder / "config.json").write_text(recipe.to_json(CONFIG))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def test_a_run_becomes_a_picture(tmp_path):
    write_run(
        tmp_path,
        [{"step": s, "loss_nats_per_token": 8 / s} for s in range(1, 50)]
        + [{"step": 49, "heldout/loss_nats_per_token": 0.5}]
        + [{"step": 50, "loss_nats_per_token": None}],
    )
    plot_loss(tmp_path, tmp_path / "pictures" / "loss.png")
    assert (tmp_path / "pictures" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_branched_run_is_drawn_over_the_tokens_that_it_saw(tmp_path, monkeypatch):
    records = [
        {"step": s, "loss_nats_per_token": 8 / s, "tokens_seen": 1_000_000 + 7 * s}
        for s in (100, 200, 300)
    ]
    write_run(tmp_path, [*records, {"step": 200, "heldout/loss_nats_per_token": 0.5}])
    drawn = {}
    monkeypatch.setattr(Axes, "plot", spy_on(Axes.plot, drawn))
    plot_loss(tmp_path, tmp_path / "loss.png")
    np.testing.assert_array_equal(drawn["training"], [1_000_700, 1_001_400, 1_002_100])
    np.testing.assert_array_equal(drawn["held-out documents"], [1_001_400])


def spy_on(plot, drawn):
    """Keeps what is drawn along x, by label."""

    def spy(axes, x, y, **style):
        drawn[style.get("label")] = x
        return plot(axes, x, y, **style)

    return spy


def test_a_run_of_one_step_becomes_a_picture(tmp_path):
    write_run(tmp_path, [{"step": 1, "loss_nats_per_token": 8.0}])
    plot_loss(tmp_path, tmp_path / "loss.png")


@pytest.mark.parametrize("records", [[], [{"step": 3, "grad_norm": 1.0}]])
def test_a_run_without_losses_is_refused_by_name(tmp_path, records):
    write_run(tmp_path, records)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has no 'loss_nats_per_token' yet"):
        plot_loss(tmp_path, tmp_path / "loss.png")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        plot_loss(tmp_path, tmp_path / "loss.png")


def test_smoothing_is_the_weighted_mean_of_both_sides():
    values = np.random.default_rng(0).normal(size=30)
    distance = np.abs(np.arange(30)[:, None] - np.arange(30))
    weights = 0.5 ** (distance / 3.0)
    expected = (weights @ values) / weights.sum(1)
    np.testing.assert_allclose(smooth(values, half_life=3.0), expected)
