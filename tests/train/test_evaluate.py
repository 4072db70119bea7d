"""Held-out scores: what they are sums of, and what they are divided by."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.config import EvaluateConfig, MeshConfig
from llama_jax.model import abstract_params
from llama_jax.recipe import to_json
from llama_jax.train import parts
from llama_jax.train.data import open_data
from llama_jax.train.evaluate import Evaluator, Score, held_out_metrics, total
from llama_jax.train.feed import local_rows, make_to_devices
from llama_jax.train.loop import train
from tests.train.tiny_run import fill, tiny_config


@pytest.fixture
def evaluator(corpus, one_device):
    config = tiny_config(
        data__directory=str(corpus), evaluate=EvaluateConfig(num_batches=0), train__batch_size=4
    )
    graphdef, abstract = abstract_params(config.model, config.compute)
    rows = local_rows(config, one_device, 4)
    to_devices = make_to_devices(config, one_device, rows, 4)
    with open_data(config, corpus, None, write=False) as data:
        held_out = data.held_out(rows=rows)
    return Evaluator(graphdef, config, held_out, to_devices=to_devices), fill(abstract)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(evaluator):
    score, params = evaluator
    scores = score(jax.tree.map(jnp.zeros_like, params))
    assert scores.keys() == {"up", "down"}
    for result in scores.values():
        assert result.documents == 40
        np.testing.assert_allclose(result.loss_nats_per_token, math.log(64), rtol=1e-6)
        np.testing.assert_allclose(
            result.bits_per_byte, 6 * result.tokens / result.text_bytes, rtol=1e-6
        )


def test_all_sources_together_weigh_by_their_tokens(evaluator):
    score, params = evaluator
    scores = score(params)
    both = total(scores)
    up, down = scores["up"], scores["down"]
    assert up.loss_nats_per_token != down.loss_nats_per_token
    assert both.tokens == up.tokens + down.tokens
    assert both.loss_nats_per_token == (up.nats + down.nats) / (up.tokens + down.tokens)
    metrics = held_out_metrics(scores)
    assert metrics["heldout/loss_nats_per_token"] == both.loss_nats_per_token
    assert metrics["heldout/down/bits_per_byte"] == down.bits_per_byte


def test_scoring_too_little_is_refused_before_a_thread_compiles(corpus, tmp_path, monkeypatch):
    """Python ended with SIGABRT, not with 2, where the thread was at work."""
    monkeypatch.setattr(parts, "begin_compiling", lambda *_: pytest.fail("compiled"))
    config = tiny_config(
        data__directory=str(corpus),
        data__seq_len=2,
        train__batch_size=2,
        mesh=MeshConfig(fsdp=2, tensor=2, context=2),
        evaluate=EvaluateConfig(num_batches=1),
    )
    with pytest.raises(ValueError, match=r"evaluate\.num_batches: .* the shortest has \d+ tokens"):
        train(config, tmp_path / "run")


@pytest.fixture
def scored_run(corpus, tmp_path, one_device):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=6,
        train__batch_size=12,
        train__accumulation_steps=3,
        mesh=MeshConfig(fsdp=2, tensor=2, context=2),
        evaluate=EvaluateConfig(num_batches=1),
    )
    outcome = train(config, tmp_path / "run")
    return tmp_path / "run", config, outcome.held_out


def test_eval_scores_the_same_on_the_mesh_of_the_run_and_on_any_other(scored_run, capsys):
    folder, config, expected = scored_run

    def scores(*flags):
        assert main(["eval", str(folder), "--json", *flags]) == 0
        out, err = capsys.readouterr()
        return json.loads(out)["held_out"], err

    def assert_same(got):
        for source, score in expected.items():
            assert got[source].keys() == score.to_json().keys()
            for name, value in score.to_json().items():
                assert got[source][name] == pytest.approx(value, rel=1e-5), (source, name)

    got, err = scores()
    assert got == {source: score.to_json() for source, score in expected.items()}
    assert "eval 2/2 batches" in err
    # Twelve rows do not go into eight parts: rows of padding are added.
    got, err = scores("--mesh.fsdp", "8")
    assert_same(got)
    assert "is not used" not in err

    other = dataclasses.replace(config, mesh=MeshConfig(fsdp=16))
    (folder / "config.json").write_text(to_json(other))
    got, err = scores()
    assert_same(got)
    assert "the run's mesh is not used: " in err and "mesh.fsdp=16" in err
    assert main(["eval", str(folder), "--mesh.tensor", "3"]) == 2


def test_nothing_to_score_is_no_score():
    assert held_out_metrics({}) == {}
    assert Score(nats=0.0, tokens=0, text_bytes=0, documents=0).loss_nats_per_token == 0
