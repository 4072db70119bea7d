"""`llama-jax convert to-hf` on a run's folder."""

import dataclasses
import io
import json
import pickletools
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.recipe import to_json
from tests.convert.hf_folder import shrunk, write_hf
from tests.infer.saved_run import CONFIG, TEXT, random_params, write_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("saved") / "run")


def test_the_newest_checkpoint_is_exported_with_its_tokenizer(run_dir, tmp_path, capfd):
    assert main(["convert", "to-hf", str(run_dir), str(tmp_path / "out"), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["step"] == 10
    assert facts["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {*facts["files"]}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    assert "| tokens | 1,280 in rows" in (tmp_path / "out" / "README.md").read_text()


def test_a_step_can_be_chosen(run_dir, tmp_path, capfd):
    for step in ("5", "10"):
        out = str(tmp_path / step)
        assert main(["convert", "to-hf", str(run_dir), out, "--step", step]) == 0
    first, second = (
        load_file(tmp_path / step / "model.safetensors")["lm_head.weight"] for step in ("5", "10")
    )
    # The tokenizer's 320 pieces, without the rows that pad the run's table to 384.
    assert first.shape == (320, CONFIG.model.embed_dim)
    np.testing.assert_allclose(second, 2 * first, rtol=1e-6)


def test_the_latest_losses_up_to_that_step_are_told(run_dir, tmp_path):
    lines = [
        {"step": 2, "loss_nats_per_token": 5.0},
        {"step": 3, "heldout/python/loss_nats_per_token": 4.0},
        {"step": 4, "loss_nats_per_token": 4.5},
        {"step": 10, "heldout/python/loss_nats_per_token": 2.5, "loss_nats_per_token": 2.0},
    ]
    metrics = run_dir / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(["convert", "to-hf", str(run_dir), str(tmp_path / "out"), "--step", "5"])
    metrics.unlink()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| held-out loss, python | 4.0000 nats a token after update 3 |" in card
    assert "| training loss | 4.5000 nats a token at update 4 |" in card
    assert "| updates | 5 of 10 |" in card


def test_a_tokenizer_that_cannot_be_exported_can_be_left_out(run_dir, tmp_path, capfd):
    tokenizer = run_dir / "tokenizer.model"
    tokenizer.rename(run_dir / "kept")
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=stream,
        vocab_size=40,
        model_type="unigram",
        minloglevel=2,
    )
    tokenizer.write_bytes(stream.getvalue())
    try:
        assert main(["convert", "to-hf", str(run_dir), str(tmp_path / "out")]) == 2
        assert "--without-tokenizer" in capfd.readouterr().err
        assert list(tmp_path.iterdir()) == []
        arguments = [str(run_dir), str(tmp_path / "out"), "--without-tokenizer"]
        assert main(["convert", "to-hf", *arguments]) == 0
        assert not (tmp_path / "out" / "tokenizer.json").exists()
    finally:
        (run_dir / "kept").rename(tokenizer)


def test_wrong_requests_are_refused(run_dir, tmp_path, capfd):
    assert main(["convert", "to-onnx"]) == 2
    assert (
        "FORMAT='to-onnx' is no format; there are: to-hf, from-hf, to-meta"
        in capfd.readouterr().err
    )
    assert main(["convert", "from-hf", "gs://bucket/hf", str(tmp_path / "out")]) == 2
    assert "'gs://bucket/hf' is in a bucket; imports are between" in capfd.readouterr().err
    assert main(["convert", "to-hf", str(run_dir), "gs://bucket/hf"]) == 2
    assert "OUT_DIR='gs://bucket/hf' is in a bucket; results are" in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["convert", "to-hf", str(run_dir), str(tmp_path)]) == 2
    assert "is already in use" in capfd.readouterr().err


def test_a_run_whose_weights_are_no_numbers_is_refused(run_dir, tmp_path, one_device, capfd):
    shutil.copytree(run_dir, tmp_path / "run")
    _, params = random_params(CONFIG.model, CONFIG.compute, scale=1.0)
    gate = params["blocks"]["mlp"]["gate"]
    gate.set_value(gate[...].at[1, 3, 5].set(np.nan))
    with Checkpointer(tmp_path / "run/checkpoints") as checkpointer:
        checkpointer.save(12, {"params": params}, {"step": 12, "tokens": 0})
    for name in ("to-hf", "check"):
        other = tmp_path / "out" if name == "to-hf" else tmp_path / "run"
        assert main(["convert", name, str(tmp_path / "run"), str(other)]) == 2
        message = capfd.readouterr().err
        assert "model.layers.1.mlp.gate_proj.weight has a value that is NaN or infinite" in message
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_metas_files_are_written_without_pytorch(run_dir, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["convert", "to-meta", str(run_dir), str(tmp_path / "out")]) == 0
    with zipfile.ZipFile(tmp_path / "out/consolidated.00.pth") as file:
        assert file.testzip() is None
        pickletools.dis(file.read("consolidated.00/data.pkl"), out := io.StringIO())
    assert "'layers.0.attention.wq.weight'" in out.getvalue()
    # Their logits are PyTorch's to compute, which is told before anything is written.
    assert main(["convert", "to-meta", str(run_dir), str(tmp_path / "other"), "--check"]) == 2
    assert "pip install 'llama-jax[torch]'" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_source_that_changed_is_found_on_the_way_to_meta(tmp_path, capfd, damage):
    write_hf(tmp_path / "hf", shrunk(), "bfloat16")
    assert main(["convert", "from-hf", str(tmp_path / "hf"), str(tmp_path / "run")]) == 0
    state = tmp_path / "run/checkpoints/0/state"
    files = (path for path in state.rglob("params.*/**/*") if path.is_file())
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-100])
    assert main(["convert", "to-meta", str(tmp_path / "run"), str(tmp_path / "out")])
    told = capfd.readouterr().err
    assert path.name in told
    assert ("its content changed" if damage == "flipped" else "bytes") in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["to-hf", "from-hf", "to-meta"])
def test_a_disk_without_room_is_refused_before_anything_is_written(
    run_dir, tmp_path, monkeypatch, capfd, kind
):
    source = run_dir
    if kind == "from-hf":
        source = tmp_path / "hf"
        assert main(["convert", "to-hf", str(run_dir), str(source)]) == 0
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main(["convert", kind, str(source), str(tmp_path / "out")]) == 2
    message = capfd.readouterr().err
    assert re.search(r"OUT_DIR=.*bytes are needed, 100,000 are free; make room", message), message
    assert [path.name for path in tmp_path.iterdir()] == (["hf"] if kind == "from-hf" else [])


def test_a_model_that_transformers_refuses_is_refused(run_dir, tmp_path, capfd):
    model = dataclasses.replace(CONFIG.model, embed_dim=34, num_heads=4)
    shutil.copytree(run_dir, tmp_path / "run")
    config = dataclasses.replace(CONFIG, model=model)
    (tmp_path / "run/config.json").write_text(to_json(config))
    assert main(["convert", "to-hf", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "model.embed_dim=34 is no multiple of model.num_heads=4" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "places"),
    [
        ("to-hf", "RUN_DIR OUT_DIR"),
        ("from-hf", "HF_DIR OUT_DIR"),
        ("to-meta", "RUN_DIR OUT_DIR"),
        ("from-meta", "META_DIR OUT_DIR"),
        ("from-llama2c", "FILE OUT_DIR"),
        ("check", "A B"),
    ],
)
def test_help_names_the_two_places(capfd, command, places):
    with pytest.raises(SystemExit):
        main(["convert", command, "--help"])
    assert places in capfd.readouterr().out.splitlines()[0]
