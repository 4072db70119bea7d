"""A model is compared with the published one that it resembles, and told apart where it matters."""

import dataclasses

import pytest

from llama_jax.aot.reference import PUBLISHED, compare_with_published
from llama_jax.config import ModelConfig, PlainRope
from llama_jax.recipe import list_recipes, load_recipe

RECIPES = [name for name in list_recipes() if name.startswith("llama")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_the_family_is_the_published_model(recipe):
    comparison = compare_with_published(load_recipe(recipe).model)
    assert comparison is not None
    assert comparison.name.lower().replace("-", "").replace(".", "_").replace(" ", "_") == recipe
    assert comparison.differences == ()


def test_the_rotary_base_of_another_generation_is_told():
    mistaken = dataclasses.replace(PUBLISHED["LLaMA-3 8B"], rope=PlainRope(theta=10_000.0))
    comparison = compare_with_published(mistaken)
    assert comparison is not None
    assert comparison.name == "LLaMA-3 8B"
    assert comparison.differences == ("rope.theta: 500000.0 -> 10000.0",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm_eps": 1e-6}, "norm_eps: 1e-05 -> 1e-06"),
        ({"num_kv_heads": 64}, "num_kv_heads: 8 -> 64"),
        ({"vocab_size": 32_768}, "vocab_size: 32000 -> 32768"),
        ({"tie_embeddings": True}, "tie_embeddings: False -> True"),
    ],
)
def test_each_field_that_a_checkpoint_cannot_forgive_is_told(change, told):
    model = dataclasses.replace(PUBLISHED["LLaMA-2 70B"], **change)
    comparison = compare_with_published(model)
    assert comparison is not None
    assert (comparison.name, comparison.differences) == ("LLaMA-2 70B", (told,))


def test_a_shorter_context_is_a_choice():
    model = dataclasses.replace(PUBLISHED["LLaMA-3 70B"], max_seq_len=4096)
    comparison = compare_with_published(model)
    assert comparison is not None
    assert comparison.differences == ()
    assert comparison.choices == ("max_seq_len: 8192 -> 4096",)


def test_a_model_of_ones_own_is_compared_with_none():
    own = ModelConfig(
        num_layers=32,
        embed_dim=2560,
        mlp_dim=6912,
        num_heads=20,
        num_kv_heads=20,
        head_dim=128,
        vocab_size=50_000,
        max_seq_len=2048,
    )
    assert compare_with_published(own) is None
