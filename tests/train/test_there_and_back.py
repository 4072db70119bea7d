"""A run that was a Hugging Face folder in between goes on as if it had not been."""

import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.config import CheckpointConfig, EvaluateConfig
from llama_jax.train.history import samples_seen
from llama_jax.train.loop import train
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
