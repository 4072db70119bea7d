"""The same update twice is the same bits, or the run ends."""

import jax
import numpy as np
import pytest

from llama_jax.config import EvaluateConfig, GuardConfig
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.loop import train
from llama_jax.train.recompute import Recompute
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config


@pytest.mark.parametrize("wrong_at", [0, 6])
def test_a_chip_that_computes_wrongly_ends_the_run_and_checks_change_nothing(
    corpus, tmp_path, monkeypatch, one_device, wrong_at
):
    config = tiny_config(
        data__directory=str(corpus),
        train__num_steps=8,
        evaluate=EvaluateConfig(num_batches=1),
        guards=GuardConfig(recompute_every_steps=3),
    )
    really, calls = Recompute.check, []

    def check(self, step, *arguments):
        norms, turns = self._norms, []

        def flipping(*inputs):
            turns.append(1)
            found = np.array(jax.device_get(norms(*inputs)))
            if step == wrong_at and len(turns) == 2:
                found.view(np.uint32)[1] ^= 1
            return found

        calls.append(step)
        monkeypatch.setattr(self, "_norms", flipping)
        try:
            really(self, step, *arguments)
        finally:
            monkeypatch.setattr(self, "_norms", norms)

    monkeypatch.setattr(Recompute, "check", check)
    if wrong_at:
        with pytest.raises(TrainingFailed, match=r"step 6: the same update .* --since 2"):
            train(config, tmp_path / "checked")
        return
    train(config, tmp_path / "checked")
    assert calls == [3, 6]
    train(tiny_config(data__directory=str(corpus), train__num_steps=8), tmp_path / "plain")
    assert_equal(
        saved_arrays(tmp_path / "plain", config, 8), saved_arrays(tmp_path / "checked", config, 8)
    )
