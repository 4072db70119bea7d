"""Held-out scores: what they are sums of, and what they are divided by."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import EvaluateConfig
from llama_jax.model import abstract_params
from llama_jax.train.data import open_data
from llama_jax.train.evaluate import Evaluator, Score, held_out_metrics, total
from llama_jax.train.feed import local_rows, make_to_devices
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


def test_nothing_to_score_is_no_score():
    assert held_out_metrics({}) == {}
    assert Score(nats=0.0, tokens=0, text_bytes=0, documents=0).loss_nats_per_token == 0
