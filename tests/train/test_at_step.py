"""The rows of one update, listed and computed alone."""

import json

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.observe.writers import read_metrics
from llama_jax.train.loop import train
from tests.train.tiny_run import tiny_config


def test_an_update_is_taken_apart_into_rows_that_make_up_its_loss(
    corpus, tmp_path, one_device, capsys
):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=6,
        train__batch_ramp=((3, 16),),
        checkpoint=CheckpointConfig(every_steps=1, keep_last=9),
        evaluate=EvaluateConfig(num_batches=1),
    )
    run_dir = tmp_path / "run"
    train(config, run_dir)
    assert main(["data", "at-step", str(run_dir), "5"]) == 0
    listed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    dataset = open_dataset(config.data, vocab_size=64, batch_size=16)
    assert {line[0] for line in listed} == set(map(str, range(40, 56)))
    documents = {(d.source, d.id) for d in dataset.documents_of(40, 16)}
    assert {(line[1], line[3]) for line in listed} == documents

    assert main(["data", "at-step", str(run_dir), "5", "--replay", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    losses = [row["loss_nats_per_token"] for row in rows]
    assert losses == sorted(losses, reverse=True) and all(row["grad_norm"] > 0 for row in rows)
    weights = {40 + i: mask.sum() for i, mask in enumerate(dataset.batch(40).loss_mask)}
    mean = np.average(losses, weights=[weights[row["sample"]] for row in rows])
    records = read_metrics(run_dir / "metrics.jsonl")
    [record] = [r for r in records if r["step"] == 5 and "grad_norm" in r]
    assert mean == pytest.approx(record["loss_nats_per_token"], rel=1e-5)

    for step, complaint in (("0", "must be an update"), ("7", "must be an update")):
        assert main(["data", "at-step", str(run_dir), step]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["data", "at-step", str(run_dir), "1", "--replay"]) == 2
    assert "no checkpoint before update 1" in capsys.readouterr().err
