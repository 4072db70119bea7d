"""A real, trained model in llama2.c's layout, imported and judged by an independent forward."""

import json

import numpy as np
import pytest

from llama_jax.cli.convert.check import open_weights
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.convert.exact_program import ExactProgram
from llama_jax.convert.programs import OUTPUT, OurProgram, compute
from tests.model.test_trained_weights import CHECKPOINT, independent_logits, stories

__all__ = ["stories"]


@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {CHECKPOINT}")
def test_trained_weights_compute_what_an_independent_float64_forward_does(tmp_path, stories):
    assert main(["convert", "from-llama2c", str(CHECKPOINT), str(tmp_path / "run")]) == 0
    tokens = [1, *np.random.default_rng(0).integers(3, 512, 99).tolist()]
    weights, expected = open_weights(tmp_path / "run"), independent_logits(stories, tokens)
    programs = {1e-4: OurProgram(weights), 1e-9: ExactProgram(weights, np.float64)}
    for tolerance, program in programs.items():
        logits = compute(program, weights.model, np.array(tokens))[OUTPUT]
        np.testing.assert_allclose(logits, expected, atol=tolerance, rtol=0)
    arguments = [str(tmp_path / "run"), str(tmp_path / "hf"), "--without-tokenizer"]
    assert main(["convert", "to-hf", *arguments]) == 0
    assert main(["convert", "check", str(tmp_path / "run"), str(tmp_path / "hf")]) == 0


@pytest.mark.parametrize("cut", [slice(None, -4), slice(None, 20), slice(4, None)])
def test_a_file_whose_bytes_do_not_add_up_is_refused(tmp_path, capfd, cut):
    header = np.array([8, 16, 1, 2, 2, 10, 4], "<i4")
    count = 10 * 8 + 4 * 64 + 3 * 128 + 3 * 8 + 4 * 4
    whole = header.tobytes() + np.ones(count, np.float32).tobytes()
    path = tmp_path / "model.bin"
    path.write_bytes(whole)
    assert main(["convert", "from-llama2c", str(path), str(tmp_path / "good")]) == 0
    path.write_bytes(whole[cut])
    assert main(["convert", "from-llama2c", str(path), str(tmp_path / "bad")]) == 2
    assert str(path) in capfd.readouterr().err
    assert not (tmp_path / "bad").exists()


def write_small(path):
    header = np.array([8, 16, 1, 2, 2, 10, 4], "<i4")
    count = 10 * 8 + 4 * 64 + 3 * 128 + 3 * 8 + 4 * 4
    path.write_bytes(header.tobytes() + np.ones(count, np.float32).tobytes())


def test_nothing_but_the_file_is_read(tmp_path, capfd):
    (tmp_path / "models").mkdir()
    write_small(tmp_path / "models/tiny.bin")
    for name in ("training_config.json", "certificate.json", "tokenizer.model"):
        (tmp_path / "models" / name).write_text("of another model")
    arguments = [str(tmp_path / "models/tiny.bin"), str(tmp_path / "run")]
    assert main(["convert", "from-llama2c", *arguments, "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["num_params"] == 744
    assert not (tmp_path / "run").exists()
    assert main(["convert", "from-llama2c", *arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["bytes"] == 4 * 744
    assert read_config(tmp_path / "run").name == "tiny"
    assert not (tmp_path / "run/tokenizer.model").exists()
    certificate = json.loads((tmp_path / "run/certificate.json").read_text())
    assert certificate["verified_source"] is False
    assert certificate["source"]["folder"] == str(tmp_path / "models/tiny.bin")


def test_files_that_are_none_of_llama2c_are_refused(tmp_path, capfd):
    for content, complaint in {None: "there is no such file", b"x" * 20: "is no model in"}.items():
        if content is not None:
            (tmp_path / "tiny.bin").write_bytes(content)
        arguments = [str(tmp_path / "tiny.bin"), str(tmp_path / "run")]
        assert main(["convert", "from-llama2c", *arguments]) == 2
        assert complaint in capfd.readouterr().err
