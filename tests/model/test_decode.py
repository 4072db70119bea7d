"""Continuing through the cache is the same function as reading the whole row."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ComputeConfig, Llama3Rope
from llama_jax.model import KVCache, Llama, init_cache
from tests.model.tiny_model import MODEL, jit, layout, logits, new_model, random_rows


@jit
def decode(model: Llama, tokens, positions, cache: KVCache):
    return model.decode(tokens, positions, cache)


def in_pieces(model, rows, lengths, cache):
    pieces, start = [], 0
    for length in lengths:
        piece = np.s_[:, start : start + length]
        scores, cache = decode(model, rows.tokens[piece], rows.positions[piece], cache)
        pieces.append(scores)
        start += length
    return np.concatenate(pieces, axis=1), cache


@pytest.mark.parametrize(
    "change",
    [{}, {"num_kv_heads": 1, "tie_embeddings": True}, {"num_kv_heads": 4, "rope": Llama3Rope()}],
    ids=["grouped", "one key head, tied", "multi-head, llama3 rope"],
)
def test_decoding_in_pieces_equals_the_uncached_forward(one_device, change):
    config = dataclasses.replace(MODEL, **change)
    model, rows = new_model(config), random_rows(0, rows=3)
    cache = init_cache(config, 3, 24, jnp.dtype("float32"))
    scores, _ = in_pieces(model, rows, (12, 1, 1, 1, 1), cache)
    np.testing.assert_allclose(scores, logits(model, rows), atol=1e-6)


def test_prompts_of_other_lengths_in_the_batch_change_nothing(one_device):
    model, rows = new_model(), random_rows(1, rows=2)
    lengths = np.array([[9], [4]])
    padded = np.where(rows.positions < lengths, rows.positions, -1)
    cache = init_cache(MODEL, 2, 16, jnp.dtype("float32"))
    prompt, cache = decode(model, rows.tokens[:, :9], padded[:, :9], cache)
    next_tokens = np.take_along_axis(rows.tokens, lengths, axis=1)
    scores, cache = decode(model, next_tokens, lengths, cache)

    expected = np.asarray(logits(model, rows))
    np.testing.assert_allclose(prompt[0], expected[0, :9], atol=1e-6)
    np.testing.assert_allclose(prompt[1, :4], expected[1, :4], atol=1e-6)
    np.testing.assert_allclose(scores[:, 0], expected[[0, 1], [9, 4]], atol=1e-6)
    np.testing.assert_array_equal(cache.filled.sum(axis=1), [10, 5])


def test_what_an_older_row_left_behind_is_never_seen(one_device):
    model, rows = new_model(), random_rows(2, rows=2)
    empty = init_cache(MODEL, 2, 16, jnp.dtype("float32"))
    stale = empty._replace(k=empty.k + 9.0, v=empty.v - 9.0)
    for_both = [decode(model, rows.tokens, rows.positions, cache)[0] for cache in (empty, stale)]
    np.testing.assert_array_equal(*for_both)


def test_decoding_is_the_same_on_a_mesh():
    rows = random_rows(3, rows=4)
    scores = []
    for sizes in ({"fsdp": 1}, {"fsdp": 2, "tensor": 2}):
        with layout(**sizes):
            cache = init_cache(MODEL, 4, 16, jnp.dtype("float32"))
            scores.append(in_pieces(new_model(), rows, (8, 8), cache)[0])
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_the_cache_keeps_its_dtype(one_device):
    model = new_model(compute=ComputeConfig(dtype="bfloat16"))
    rows = random_rows(4, rows=1)
    cache = init_cache(MODEL, 1, 16, jnp.dtype("bfloat16"))
    scores, cache = decode(model, rows.tokens, rows.positions, cache)
    assert (cache.k.dtype, scores.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(scores, logits(new_model(), rows), atol=0.02)


def test_a_cache_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match=r"65 tokens exceeds model\.max_seq_len=64"):
        init_cache(MODEL, 1, 65, jnp.dtype("float32"))
