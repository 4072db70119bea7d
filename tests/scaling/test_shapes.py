"""Shapes are near what is wanted, well-proportioned, and LLaMA's own where it chose that size."""

import pytest

from llama_jax.flops import count_params
from llama_jax.scaling.shapes import nearest_shape


@pytest.mark.parametrize("params", [1e6, 1e7, 1e8, 1e9, 6.7e9, 13e9, 65e9, 4e11])
def test_shapes_are_near_what_is_wanted_and_easy_to_split(params):
    shape = nearest_shape(params)
    assert count_params(shape).total == pytest.approx(params, rel=0.05)
    assert shape.embed_dim == shape.num_heads * shape.head_dim
    assert shape.mlp_dim % 64 == shape.embed_dim % 64 == 0
    if shape.embed_dim >= 2048:
        assert shape.num_heads % 4 == 0


@pytest.mark.parametrize("vocab_size", [32_000, 128_256, 256_000])
@pytest.mark.parametrize("params", [0.95e9, 1.05e9, 1.5e9, 2.5e9, 5e9, 8e9, 70e9])
def test_both_tables_of_a_large_vocabulary_are_counted(params, vocab_size):
    shape = nearest_shape(params, vocab_size=vocab_size)
    assert count_params(shape).total == pytest.approx(params, rel=0.03)


def test_two_tables_never_take_over_a_fifth_of_the_parameters():
    assert nearest_shape(3.2e9, vocab_size=128_256).tie_embeddings
    assert not nearest_shape(8e9, vocab_size=128_256).tie_embeddings
    assert nearest_shape(2.8e9, vocab_size=1_000_000).tie_embeddings
    assert not nearest_shape(1.1e9).tie_embeddings


@pytest.mark.parametrize(
    ("asked", "layers", "embed", "mlp", "kv_heads"),
    [
        ({"params": 6.74e9}, 32, 4096, 11008, 32),
        ({"params": 13.0e9}, 40, 5120, 13824, 40),
        ({"params": 68.98e9}, 80, 8192, 28672, 8),
        ({"params": 8.03e9, "vocab_size": 128_256, "num_kv_heads": 8}, 32, 4096, 14336, 8),
    ],
    ids=["LLaMA-1 7B", "LLaMA-1 13B", "LLaMA-2 70B", "LLaMA-3 8B"],
)
def test_llamas_own_shapes_are_found_again(asked, layers, embed, mlp, kv_heads):
    shape = nearest_shape(**asked)
    assert (shape.num_layers, shape.embed_dim, shape.mlp_dim) == (layers, embed, mlp)
    assert shape.num_kv_heads == kv_heads


@pytest.mark.parametrize("params", [31e9, 70e9, 4e11])
def test_queries_are_grouped_from_30b_on(params):
    shape = nearest_shape(params)
    assert shape.num_kv_heads == 8
    assert shape.num_heads % 8 == 0
    assert nearest_shape(29e9).num_kv_heads == nearest_shape(29e9).num_heads


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"params": 1e4}, "is too few: a vocabulary of 8192 takes 524,288"),
        ({"params": 1e30}, "the nearest, 512 layers of 24,576, has"),
        ({"params": 3e3, "vocab_size": 10}, "the nearest, 2 layers of 64, has"),
        ({"params": 1e9, "num_kv_heads": 1000}, "divides the heads of no shape; take 8"),
        ({"params": 1e9, "num_kv_heads": -1}, "--kv-heads=-1 must be positive"),
    ],
)
def test_what_no_shape_has_is_refused(asked, why):
    with pytest.raises(ValueError, match=why):
        nearest_shape(**asked)
