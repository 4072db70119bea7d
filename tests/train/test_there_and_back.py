"""A run that was a Hugging Face folder in between goes on as if it had not been."""

import dataclasses
import json

import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.config import CheckpointConfig, Cosine, EvaluateConfig
from llama_jax.recipe import to_json
from llama_jax.train.beginning import parse_origin
from llama_jax.train.history import samples_seen
from llama_jax.train.loop import train
from tests.convert.hf_folder import write_hf
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config

HALF, ALL = 4, 8


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_after_hugging_face(corpus, tmp_path, one_device, capfd):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=ALL,
        checkpoint=CheckpointConfig(every_steps=HALF),
        evaluate=EvaluateConfig(num_batches=1),
    )
    run, hf, back = (tmp_path / name for name in ("run", "hf", "back"))
    train(config, run)
    flags = ["--optimizer", "--without-tokenizer", "--step", str(HALF)]
    assert main(["convert", "to-hf", str(run), str(hf), *flags]) == 0
    assert main(["convert", "from-hf", str(hf), str(back), "--optimizer"]) == 0
    capfd.readouterr()
    train(read_config(back), back)
    assert f"resumed at step {HALF}, sample {8 * HALF}" in capfd.readouterr().err
    assert_equal(saved_arrays(run, config, ALL), saved_arrays(back, config, ALL))
    assert samples_seen(run) == samples_seen(back)
    metas = [Checkpointer(f / "checkpoints", read_only=True).meta(ALL) for f in (run, back)]
    assert metas[0]["tokens"] == metas[1]["tokens"] == 8 * 16 * ALL


@pytest.mark.slow
@pytest.mark.parametrize("branches_off", [False, True])
def test_training_after_an_import_keeps_the_rows_of_its_vocabulary(
    corpus, tmp_path, one_device, branches_off
):
    config = tiny_config(
        schedule=Cosine(warmup_steps=1),
        data__directory=str(corpus),
        train__num_steps=1,
        checkpoint=CheckpointConfig(every_steps=1),
        evaluate=EvaluateConfig(num_batches=1),
    )
    # The corpus has 64 ids, the model 62 rows of which it knows, and 2 that pad its table.
    write_hf(tmp_path / "hf", dataclasses.replace(config.model, vocab_size=62))
    (tmp_path / "hf/training_config.json").write_text(to_json(config))
    run, back = tmp_path / "run", tmp_path / "back"
    arguments = [str(tmp_path / "hf"), str(run), "--pad-vocab-to-multiple", "32"]
    assert main(["convert", "from-hf", *arguments]) == 0
    origin = parse_origin(str(run)) if branches_off else None
    trained = tmp_path / "branch" if branches_off else run
    train(config, trained, origin=origin)
    assert main(["convert", "to-hf", str(trained), str(back), "--without-tokenizer"]) == 0
    certificate = json.loads((back / "certificate.json").read_text())
    assert certificate["source"]["step"] == 1
    assert certificate["source"]["imported"]["folder"] == str(tmp_path / "hf")
    assert certificate["tensors"]["lm_head.weight"]["shape"] == [62, 16]
    assert "from weights of a Hugging Face folder, `hf`" in (back / "README.md").read_text()
