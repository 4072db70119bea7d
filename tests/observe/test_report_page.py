"""The page of a run tells the truth about it, and stands alone."""

import dataclasses
import json
import math

import numpy as np
import pytest

from llama_jax import recipe
from llama_jax.observe import goodput, incidents
from llama_jax.observe.host_table import HostRow, HostTable, write_hosts
from llama_jax.observe.line_charts import Curve, chart
from llama_jax.observe.report_page import write_report
from tests.train.tiny_run import tiny_config

HOSTILE = "</p><script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    """A run that died once, with a spike."""
    (tmp_path / "config.json").write_text(recipe.to_json(tiny_config(train__num_steps=200)))
    records = [
        {
            "step": step,
            "loss_nats_per_token": None if step == 50 else 2 + math.exp(-step / 20),
            "grad_norm": 1.0 / step,
            "learning_rate": 1e-3,
            "tokens_seen": step * 128,
            "tokens_per_second_per_chip": 1000.0 + step,
            "epochs/up": step / 100,
        }
        for step in range(10, 210, 10)
    ]
    records.append({"step": 200, "heldout/loss_nats_per_token": 2.5})
    records.append({"step": 200, "heldout/up/loss_nats_per_token": 2.75})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    notes = [
        {"start": True, "time": 0, "step": 0, "seconds": {}},
        {"time": 50, "step": 100, "seconds": {"start_up": 10, "steps": 40}},
        {"start": True, "time": 60, "step": 80, "seconds": {}},
        {"time": 100, "step": 200, "seconds": {"steps": 40}, "end": "complete"},
    ]
    (tmp_path / goodput.NAME).write_text("".join(json.dumps(note) + "\n" for note in notes))
    incidents.note(tmp_path, "spike", 110, f"loss 9 {HOSTILE}")
    times = {"step_seconds": 2.0, "data_seconds": 0.5, "busy_seconds": 1.5}
    row = HostRow(index=0, host="host-0", pid=12, step=200, doing="update", silent_seconds=1.0)
    silent = dataclasses.replace(row, index=1, host=HOSTILE, silent_seconds=90.0, **times)
    write_hosts(
        tmp_path, HostTable(time=0.0, silent_after_seconds=40.0, slow="", rows=[row, silent])
    )
    return tmp_path


def test_the_page_tells_what_the_run_did(run):
    write_report(run, run / "report.html")
    page = (run / "report.html").read_text()
    for words in ("200 of 200", "2.5000", "2.7500", "40.0% of it made updates", "lost: down"):
        assert words in page, words
    assert "<b>spike</b> at update 110" in page and "10.0%" in page
    assert ">died<" in page and "died, or goes on" not in page
    assert "silent: process 1 (pid 12 on &lt;/p&gt;" in page and ">0: host-0<" in page
    assert page.count("<title>restart</title>") == page.count("<title>spike</title>") > 0
    # Nothing acts, nothing is fetched, and the recipe is there.
    assert "<script" not in page and "src=" not in page and "http" not in page.split("</style>")[1]
    assert "&quot;accumulation_steps&quot;: 1" in page


def test_a_run_without_an_account_or_incidents_has_a_page_too(run):
    (run / goodput.NAME).unlink()
    (run / incidents.NAME).unlink()
    write_report(run, run / "report.html")
    page = (run / "report.html").read_text()
    assert "Wall time" not in page and "No incidents" in page and "<title>Run: tiny" in page


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        write_report(tmp_path, tmp_path / "report.html")
    (tmp_path / "config.json").write_text(recipe.to_json(tiny_config()))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no 'loss_nats_per_token' yet"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_long_curve_keeps_its_extremes_in_few_points():
    steps = np.arange(50_000.0)
    values = np.sin(steps / 5000)
    values[31_234] = 40.0
    drawn = chart("loss", [Curve("line", steps, values)])
    assert len(drawn) < 20_000
    heights = [float(part.split()[1]) for part in drawn.split('d="M')[-1].split('"')[0].split("L")]
    assert min(heights) == 0 and sorted(heights)[1] > 90  # the one high point, drawn at the top


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_is_drawn_too(value, logarithmic):
    curve = Curve("line", np.array([1.0, 2.0]), np.array([value, value]))
    drawn = chart("x", [curve], logarithmic=logarithmic)
    assert "nan" not in drawn and "50.00" in drawn


def test_incidents_survive_a_line_that_a_death_cut(tmp_path):
    incidents.note(tmp_path, "spike", 1, "one")
    with (tmp_path / incidents.NAME).open("a") as file:
        file.write('{"time": 1')
    incidents.note(tmp_path, "hang", 2, "two")
    incidents.note(tmp_path, "hang", 3, "of another process", process=5)
    incidents.note(tmp_path, "spike", 4, "four")
    assert [(i.step, i.kind) for i in incidents.read_incidents(tmp_path)] == [
        (1, "spike"),
        (2, "hang"),
        (3, "hang"),
        (4, "spike"),
    ]
