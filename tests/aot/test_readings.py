"""Programs that were compiled and kept do the matmuls that are counted by hand."""

import json
import math
from pathlib import Path

import pytest

from llama_jax.aot.reading import decode_program
from llama_jax.flops import count_params, matmul_params
from llama_jax.recipe import load_recipe

READINGS = sorted((Path(__file__).parents[2] / "docs/pods/readings").glob("*.json"))


def recomputed_params(model, remat):
    """Of the matmuls that the backward pass computes again.

    The last matmul of a block is never needed again: the next block's input is there.
    """
    L, D, F, H = model.num_layers, model.embed_dim, model.mlp_dim, model.head_dim
    into_heads = L * D * H * (model.num_heads + 2 * model.num_kv_heads)
    everything = count_params(model).attention + 2 * L * D * F
    return {
        "none": 0,
        "full": everything,
        "offload_inputs": everything,
        "attention": everything,
        "qkv": everything - into_heads,
        "gate": everything - L * D * F,
    }[remat]


def swapped_flops(model, remat):
    """TPUs swap the halves of a head for RoPE by a matmul with a permutation (ops/rope.py)."""
    passes = 2 if remat in ("none", "qkv") else 3
    heads = model.num_layers * (model.num_heads + model.num_kv_heads)
    return 2 * passes * heads * model.head_dim**2


@pytest.mark.parametrize("path", READINGS, ids=lambda path: path.stem)
def test_matmuls_of_a_kept_program_are_those_counted_by_hand(path):
    answer = json.loads(path.read_text())
    if not (answer["fits"] and answer["topology"]):
        pytest.skip("no program of a TPU")
    model, remat = load_recipe(answer["recipe"]).model, answer["remat"]
    tokens = answer["tokens_per_step"] / math.prod(answer["mesh"].values())
    params = 6 * matmul_params(model) + 2 * recomputed_params(model, remat)
    by_hand = (params + swapped_flops(model, remat)) * tokens
    assert decode_program(answer["program"]).matmul_flops == pytest.approx(by_hand, rel=0.01)
