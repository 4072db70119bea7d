"""What transformers saved, and what it makes of our conversions: same logits, same bytes."""

import json

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.convert.programs import OUTPUT, compute
from llama_jax.convert.transformers_program import TransformersProgram
from tests.convert.hf_folder import FAMILIES, save, write_hf

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_device")]


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def scaled(folder, model, **arguments) -> dict[str, np.ndarray]:
    """Random weights whose logits differ by units and do not explode with depth."""
    tensors = write_hf(folder, model, **arguments)
    for name, value in tensors.items():
        if value.ndim == 2:
            tensors[name] = value * value.dtype.type(model.embed_dim**-0.5)
    save(folder, tensors, num_files=arguments.get("num_files", 1))
    return tensors


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_passes_its_check_both_ways(tmp_path, model):
    scaled(tmp_path / "hf", model)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", "--check") == 0
    arguments = ["--without-tokenizer", "--check", "--dtype", "bfloat16"]
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", *arguments) == 0
    for folder in ("run", "back"):
        checks = json.loads((tmp_path / folder / "certificate.json").read_text())["checks"]
        assert checks["weights"]["identical"]
        assert checks["logits"]["max_abs_logit_difference"] <= 1e-4
        assert checks["logits"]["argmax_agreement"] >= 0.999
        assert checks["logits"]["tokens"] > 9_800


@pytest.mark.parametrize("kind", ["LLaMA-3.1", "LLaMA-3.2"])
def test_their_layers_one_after_another_are_their_model(tmp_path, kind):
    model = FAMILIES[kind]
    scaled(tmp_path / "hf", model, num_files=2)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, 50)
    logits = compute(TransformersProgram(tmp_path / "hf"), model, tokens)[OUTPUT]
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        expected = whole(input_ids=torch.from_numpy(tokens[None])).logits[0].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


def test_what_save_pretrained_writes_is_read(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "hf", max_shard_size="20kB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", "--check") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", "--without-tokenizer") == 0
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    expected = model.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], value) for name, value in expected.items())


def test_the_first_layer_that_differs_is_named(tmp_path, capfd):
    model = FAMILIES["odd heads"]
    tensors = scaled(tmp_path / "hf", model)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    name = "model.layers.1.mlp.down_proj.weight"
    save(tmp_path / "hf", tensors | {name: tensors[name] * np.float32(1.01)})
    assert convert("check", tmp_path / "run", tmp_path / "hf", "--logits", "--json") == 1
    checks = json.loads(capfd.readouterr().out)
    assert checks["weights"]["different"] == [f"{name}: other bytes"]
    assert checks["logits"]["first_layer_that_differs"] == "model.layers.1"
    told = checks["logits"]["relative_difference_after"]
    assert list(told) == ["model.embed_tokens", *(f"model.layers.{i}" for i in range(3)), "lm_head"]
    assert told["model.layers.0"] <= 1e-4 < told["model.layers.1"]
