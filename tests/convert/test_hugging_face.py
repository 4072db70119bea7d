"""Exported folders, as far as they can be judged without PyTorch."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from llama_jax.config import (
    AdamW,
    Cosine,
    DataConfig,
    LinearRope,
    Llama3Rope,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
)
from llama_jax.convert.hugging_face import export_hugging_face
from llama_jax.convert.hugging_face_config import model_config
from llama_jax.convert.origin import Losses, Origin
from llama_jax.convert.words import no_words
from llama_jax.recipe import load_recipe

MODEL = ModelConfig(
    num_layers=3,
    embed_dim=48,
    mlp_dim=40,
    num_heads=6,
    num_kv_heads=2,
    head_dim=10,
    vocab_size=70,
    max_seq_len=32,
)
RUN = RunConfig(
    name="tiny",
    model=MODEL,
    data=DataConfig(seq_len=32),
    train=TrainConfig(num_steps=10, batch_size=4),
    optimizer=AdamW(peak_lr=1e-3),
    schedule=Cosine(warmup_steps=2),
)


@pytest.fixture
def export(random_params):
    def export(out_dir, params=None, **changes):
        arguments = {"origin": Origin(step=7), "words": no_words()} | changes
        params = random_params(MODEL) if params is None else params
        return export_hugging_face(params, RUN, out_dir, **arguments)

    return export


def test_weights_are_ours_bit_for_bit(tmp_path, export, random_params, exported):
    result = export(tmp_path / "out")
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    expected = exported(MODEL, random_params(MODEL))
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(loaded[name], tensor, err_msg=name)
    assert result.num_bytes == 4 * result.num_params


def test_the_saved_training_config_is_a_recipe(tmp_path, export):
    export(tmp_path / "out")
    assert load_recipe(str(tmp_path / "out" / "training_config.json")) == RUN


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        (PlainRope(theta=5e5), None),
        (LinearRope(theta=1e4, factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            Llama3Rope(factor=32.0, original_seq_len=16),
            {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
    ],
)
def test_rope_is_told_to_both_generations_of_transformers(rope, scaling):
    config = model_config(dataclasses.replace(MODEL, rope=rope), "float32")
    assert config["rope_theta"] == rope.theta
    assert config["rope_scaling"] == scaling
    expected = scaling or {"rope_type": "default"}
    assert config["rope_parameters"] == expected | {"rope_theta": rope.theta}


def test_an_interrupted_export_from_memory_leaves_nothing(tmp_path, export):
    def stop(name, num_bytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "out", on_tensor=stop)
    assert list(tmp_path.iterdir()) == []


def test_nothing_can_be_seen_under_the_final_name_before_the_end(tmp_path, export):
    seen = []
    export(tmp_path / "out", on_tensor=lambda *_: seen.append((tmp_path / "out").exists()))
    assert seen
    assert not any(seen)


def test_an_empty_folder_is_filled(tmp_path, export):
    (tmp_path / "out").mkdir()
    assert "config.json" in export(tmp_path / "out").files


def test_a_folder_in_use_is_refused_and_untouched(tmp_path, export):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"OUT_DIR=.*out' is already in use"):
        export(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_parameters_of_another_model_are_refused_by_name(tmp_path, export, random_params):
    params = random_params(MODEL)
    params["blocks.mlp.up"] = params["blocks.mlp.up"][:, :, 1:]
    with pytest.raises(ValueError, match=r"parameter blocks\.mlp\.up has the shape \(3, 48, 39\)"):
        export(tmp_path / "out", params)
    params = random_params(MODEL)
    del params["final_norm.scale"]
    with pytest.raises(ValueError, match=r"parameter final_norm\.scale has the shape absent"):
        export(tmp_path / "out", params)


def test_an_unknown_dtype_is_refused(tmp_path, export):
    with pytest.raises(ValueError, match="dtype='float8' must be one of float32, bfloat16"):
        export(tmp_path / "out", dtype="float8")


def test_the_card_tells_what_the_run_recorded(tmp_path, export):
    losses = Losses(training=2.25, training_step=6, held_out={"python": 2.5}, held_out_step=5)
    export(tmp_path / "out", origin=Origin(step=7, losses=losses))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "A LLaMA decoder pretrained with `llama_jax`" in card
    assert "| updates | 7 of 10 |" in card
    assert "| tokens | 896 in rows of 32" in card
    assert "| held-out loss, python | 2.5000 nats a token after update 5 |" in card
    assert "| training loss | 2.2500 nats a token at update 6 |" in card
    assert "The tokenizer was not exported" in card


def test_a_config_without_tokenizer_names_no_special_ids(tmp_path, export):
    export(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["bos_token_id"] is None
    assert config["eos_token_id"] is None
