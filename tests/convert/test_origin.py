"""Card and certificate of an export tell where the weights come from, and nothing else."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.config import ModelConfig
from llama_jax.convert import mapping
from tests.convert.hf_folder import DTYPES, TINY, save, write_hf
from tests.infer.saved_run import CONFIG, write_run


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def export(run, out, *arguments):
    """The card and the certificate of an export."""
    assert convert("to-hf", run, out, "--without-tokenizer", *arguments) == 0
    return (out / "README.md").read_text(), json.loads((out / "certificate.json").read_text())


@pytest.fixture
def imported(tmp_path):
    write_hf(tmp_path / "Some-LLaMA", TINY, "bfloat16")
    assert convert("from-hf", tmp_path / "Some-LLaMA", tmp_path / "run") == 0
    return tmp_path / "run"


def test_an_import_claims_no_training(imported, tmp_path):
    card, certificate = export(imported, tmp_path / "hf")
    assert "converted from a Hugging Face folder, `Some-LLaMA`" in card
    for word in ("decoder pretrained", "AdamW", "| tokens", "FLOPs", "| updates", "| mixture"):
        assert word not in card
    assert not (tmp_path / "hf/training_config.json").exists()
    source = certificate["source"]
    assert source.keys() == {"step", "libraries", "padding_rows_left_out", "imported"}
    assert source["imported"]["folder"] == str(tmp_path / "Some-LLaMA")
    assert source["imported"]["conversion"] == "from-hf"


def test_what_an_export_of_ours_told_is_told_again_after_a_detour(tmp_path):
    write_run(tmp_path / "run")
    card, first = export(tmp_path / "run", tmp_path / "hf")
    assert "A LLaMA decoder pretrained with `llama_jax`" in card
    assert (first["source"]["step"], first["source"]["tokens"]) == (10, 1280)
    assert first["source"]["padding_rows_left_out"] == 64
    assert first["source"]["config"]["name"] == "saved"
    assert first["source"]["data"]["mixture"] == []
    assert convert("from-hf", tmp_path / "hf", tmp_path / "back") == 0
    card, second = export(tmp_path / "back", tmp_path / "again")
    assert "converted from a Hugging Face folder, `hf`" in card
    assert second["source"]["imported"]["source"] == first["source"]
    # The config of the run came along, and is a recipe still.
    assert (tmp_path / "again/training_config.json").is_file()


def test_the_manifests_of_the_data_are_in_the_certificate(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "data/python").mkdir(parents=True)
    (tmp_path / "data/python/source.json").write_text("{}")
    path = tmp_path / "run/config.json"
    config = json.loads(path.read_text())
    config["data"]["directory"] = str(tmp_path / "data")
    path.write_text(json.dumps(config))
    _, certificate = export(tmp_path / "run", tmp_path / "hf")
    digests = certificate["source"]["data"]["manifests_sha256"]
    assert list(digests) == ["python"]
    assert digests["python"].startswith("44136fa355b3678a")


def go_on(run, model: ModelConfig, step: int, **counters):
    """Adds a checkpoint as training after an import leaves it."""
    with Checkpointer(run / "checkpoints", read_only=True) as checkpointer:
        meta = checkpointer.meta(0)
    rng = np.random.default_rng(1)
    params = {
        path: rng.standard_normal(shape, np.float32)
        for path, shape in mapping.our_shapes(model).items()
    }
    nested: dict = {}
    for path, value in params.items():
        *parents, last = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    with Checkpointer(run / "checkpoints") as checkpointer:
        kept = {"imported": meta["imported"], "step": step} | counters
        checkpointer.save(step, {"params": nested}, kept)


def test_training_after_an_import_is_told_as_that(imported, tmp_path):
    go_on(imported, TINY, 3, tokens=96)
    card, certificate = export(imported, tmp_path / "hf")
    assert "trained with `llama_jax` from weights of a Hugging Face folder, `Some-LLaMA`" in card
    assert "| tokens since the import | 96 in rows" in card
    assert certificate["source"]["tokens"] == 96
    assert certificate["source"]["imported"]["folder"] == str(tmp_path / "Some-LLaMA")


def test_training_after_an_import_keeps_the_rows_of_its_vocabulary(tmp_path):
    write_hf(tmp_path / "hf", TINY)
    arguments = ["--pad-vocab-to-multiple", 64]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", *arguments) == 0
    go_on(tmp_path / "run", dataclasses.replace(TINY, vocab_size=128), 3, tokens=96)
    _, certificate = export(tmp_path / "run", tmp_path / "back")
    assert certificate["tensors"]["lm_head.weight"]["shape"] == [70, 48]
    # A tokenizer with fewer ids than the model has rows cuts none of them off, either.
    write_run(tmp_path / "other")
    shutil.copyfile(tmp_path / "other/tokenizer.model", tmp_path / "run/tokenizer.model")
    _, certificate = export(tmp_path / "run", tmp_path / "more")
    assert certificate["tensors"]["lm_head.weight"]["shape"] == [128, 48]
    assert CONFIG.model.vocab_size == 384


def test_parameters_of_several_dtypes_keep_them(tmp_path, capfd):
    tensors = write_hf(tmp_path / "hf", TINY, "bfloat16")
    mixed = {
        name: value.astype(DTYPES["float32"]) if "norm" in name else value
        for name, value in tensors.items()
    }
    save(tmp_path / "hf", mixed)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("check", tmp_path / "hf", tmp_path / "run") == 0
    card, certificate = export(tmp_path / "run", tmp_path / "back")
    assert certificate["tensors"]["model.norm.weight"]["dtype"] == "float32"
    assert certificate["tensors"]["lm_head.weight"]["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "back/config.json").read_text())["dtype"] == "bfloat16"
    assert "| weights | bfloat16 and float32 |" in card
    assert convert("check", tmp_path / "hf", tmp_path / "back") == 0
    capfd.readouterr()
    flags = ["--without-tokenizer", "--dry-run", "--json"]
    assert convert("to-hf", tmp_path / "run", tmp_path / "plan", *flags) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["bytes_written"] == sum(value.nbytes for value in mixed.values())
    _, certificate = export(tmp_path / "run", tmp_path / "one", "--dtype", "bfloat16")
    assert {entry["dtype"] for entry in certificate["tensors"].values()} == {"bfloat16"}
