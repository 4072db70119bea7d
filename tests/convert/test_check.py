"""`llama-jax convert check`, as far as it needs no PyTorch."""

import importlib.util
import json
import shutil

import numpy as np
import pytest

from llama_jax.cli.main import main
from tests.convert.hf_folder import TINY, save, write_hf


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path):
    """A Hugging Face folder, the run imported from it, and the folder exported from that."""
    write_hf(tmp_path / "hf", TINY, "bfloat16", num_files=2)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", "--without-tokenizer") == 0
    return tmp_path


@pytest.mark.parametrize("pair", [("hf", "run"), ("run", "back"), ("back", "hf")])
def test_conversions_hold_the_same_model(folders, pair, capfd):
    assert convert("check", folders / pair[0], folders / pair[1], "--json") == 0
    printed = capfd.readouterr()
    assert "weights: 30 tensors, identical bit by bit" in printed.err
    assert json.loads(printed.out)["weights"]["identical"]


def test_a_single_bit_makes_the_difference(folders, capfd):
    tensors = write_hf(folders / "other", TINY, "bfloat16")
    tensors["model.norm.weight"].view(np.uint16)[5] ^= 1
    save(folders / "other", tensors)
    assert convert("check", folders / "run", folders / "other") == 1
    assert "different: model.norm.weight: other bytes" in capfd.readouterr().err


def test_models_of_another_shape_or_dtype_differ(folders, capfd):
    write_hf(folders / "other", TINY, "float16")
    path = folders / "other" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))
    assert convert("check", folders / "other", folders / "hf") == 1
    message = capfd.readouterr().err
    assert "model.norm_eps: 0.5 and 1e-05" in message
    assert "float16 and bfloat16" in message


def test_files_that_changed_after_the_certificate_are_told(folders, capfd):
    (folders / "back" / "README.md").write_text("other words")
    assert convert("check", folders / "hf", folders / "back") == 1
    assert "README.md changed: its SHA-256" in capfd.readouterr().err


def test_what_comes_out_can_be_recorded_later(folders, capfd):
    assert convert("check", folders / "run", folders / "back", "--record") == 0
    for name in ("run", "back"):
        checks = json.loads((folders / name / "certificate.json").read_text())["checks"]
        assert checks["weights"]["identical"]
        assert checks["folders"] == [str(folders / "run"), str(folders / "back")]
    # Files that are not those of the certificate get no such words.
    (folders / "back" / "README.md").write_text("other words")
    before = (folders / "back/certificate.json").read_text()
    assert convert("check", folders / "hf", folders / "back", "--record") == 1
    assert (folders / "back/certificate.json").read_text() == before
    (folders / "run/certificate.json").unlink()
    capfd.readouterr()
    assert convert("check", folders / "hf", folders / "run", "--record") == 2
    assert "--record: neither" in capfd.readouterr().err


def test_a_rounded_export_is_compared_with_rounded_weights(folders):
    arguments = ["--without-tokenizer", "--dtype", "float32"]
    assert convert("to-hf", folders / "run", folders / "wide", *arguments) == 0
    assert convert("check", folders / "run", folders / "wide") == 1
    assert convert("check", folders / "run", folders / "wide", "--dtype", "float32") == 0
    assert convert("check", folders / "wide", folders / "run", "--dtype", "float32") == 0


def test_logits_need_another_program(folders, capfd):
    shutil.copytree(folders / "run", folders / "copy")
    assert convert("check", folders / "run", folders / "copy", "--logits") == 2
    assert "--logits: neither folder is one that transformers" in capfd.readouterr().err


def test_a_damaged_certificate_is_refused(folders, capfd):
    for text in ("{", "[]", '{"tensors": {"a": {}}, "files": {}}', '{"tensors": 3}'):
        (folders / "back/certificate.json").write_text(text)
        assert convert("check", folders / "run", folders / "back") == 2
        assert "certificate.json is damaged; copy it again" in capfd.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_check_without_pytorch_is_refused_before_the_work(folders, capfd):
    assert (
        convert("to-hf", folders / "run", folders / "more", "--without-tokenizer", "--check") == 2
    )
    assert "pip install 'llama-jax[torch]'" in capfd.readouterr().err
    assert not (folders / "more").exists()
