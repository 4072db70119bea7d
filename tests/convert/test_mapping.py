"""The table between our parameters and Hugging Face's tensors."""

import dataclasses
import math

import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.convert import mapping
from llama_jax.flops import count_params

# No two sizes are equal, so that a swapped axis cannot pass for the right one.
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
TIED = dataclasses.replace(MODEL, tie_embeddings=True)


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
def test_there_and_back_is_the_identity(model, random_params, exported):
    params = random_params(model)
    back = mapping.to_ours(model, exported(model, params).__getitem__)
    assert back.keys() == params.keys()
    for path, value in params.items():
        np.testing.assert_array_equal(back[path], value, err_msg=path)


@pytest.mark.parametrize("model", [MODEL, TIED], ids=["untied", "tied"])
def test_every_parameter_is_exported_once(model):
    shapes = {tensor.name: tensor.shape for tensor in mapping.tensors_of(model)}
    assert sum(math.prod(shape) for shape in shapes.values()) == count_params(model).total
    assert ("lm_head.weight" in shapes) is not model.tie_embeddings


def test_tensors_have_the_shapes_that_linear_layers_of_pytorch_have():
    shapes = {tensor.name: tensor.shape for tensor in mapping.tensors_of(MODEL)}
    layer = "model.layers.2."
    assert shapes[layer + "self_attn.q_proj.weight"] == (60, 48)
    assert shapes[layer + "self_attn.k_proj.weight"] == (20, 48)
    assert shapes[layer + "self_attn.o_proj.weight"] == (48, 60)
    assert shapes[layer + "mlp.gate_proj.weight"] == (40, 48)
    assert shapes[layer + "mlp.down_proj.weight"] == (48, 40)


def test_a_projection_computes_the_same_in_both_layouts(random_params, exported):
    params = random_params(MODEL)
    theirs = exported(MODEL, params)
    x = np.random.default_rng(1).standard_normal((5, 48), dtype=np.float32)
    ours = np.einsum("TD,DNH->TNH", x, params["blocks.attention.query"][1])
    weight = theirs["model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_allclose((x @ weight.T).reshape(5, 6, 10), ours, rtol=1e-5, atol=1e-5)
    back = np.einsum("TNH,NHD->TD", ours, params["blocks.attention.out"][1])
    weight = theirs["model.layers.1.self_attn.o_proj.weight"]
    np.testing.assert_allclose(ours.reshape(5, 60) @ weight.T, back, rtol=1e-4, atol=1e-4)


def test_a_tensor_of_another_shape_is_refused_by_name(random_params, exported):
    theirs = exported(MODEL, random_params(MODEL))
    theirs["model.layers.1.mlp.up_proj.weight"] = np.zeros((48, 40), np.float32)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight has the shape \(48, 4"):
        mapping.to_ours(MODEL, theirs.__getitem__)
