"""FLOPs and parameters agree with counts that others published."""

import pytest

from llama_jax.flops import (
    CONVENTIONS,
    chinchilla_layer_flops_per_token,
    count_params,
    matmul_params,
    train_flops_by_convention,
    train_flops_per_token,
)
from llama_jax.hardware import ACCELERATORS, find_accelerator
from llama_jax.recipe import load_recipe


def test_parameters_of_llama2_7b_are_those_of_the_released_checkpoint():
    count = count_params(load_recipe("llama2_7b").model)
    assert count.total == 6_738_415_616
    assert count.embedding == count.output == 32_000 * 4096
    assert (
        matmul_params(load_recipe("llama2_7b").model) == count.total - count.embedding - count.norm
    )


def test_tied_embeddings_are_stored_once_and_still_multiplied():
    model = load_recipe("llama3_2_1b").model
    assert count_params(model).output == 0
    assert count_params(model).total == 1_235_814_400
    assert matmul_params(model) == count_params(model).total - count_params(model).norm


def test_flops_follow_palm_and_causal_attention_is_half_of_full():
    model, seq_len = load_recipe("llama2_70b").model, 4096
    full = train_flops_per_token(model, seq_len, "full")
    causal = train_flops_per_token(model, seq_len, "causal")
    # PaLM, appendix B: 6N + 12 L H Q T.
    assert full == 6 * matmul_params(model) + 12 * 80 * 64 * 128 * 4096
    assert (full - 6 * matmul_params(model)) / (causal - 6 * matmul_params(model)) == pytest.approx(
        2, rel=1e-3
    )


def test_llama1_65b_on_a100_gives_the_published_utilisation():
    # 380 tokens/s/GPU (section 2.4) of 312 TFLOP/s is about half of the peak.
    flops = train_flops_per_token(load_recipe("llama1_65b").model, 2048, "full")
    peak = find_accelerator("NVIDIA A100-SXM4-80GB").bf16_flops
    assert 380 * flops / peak == pytest.approx(0.50, abs=0.015)


@pytest.mark.parametrize(
    ("device_kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_device_is_recognised_by_what_jax_calls_it(device_kind, name):
    assert find_accelerator(device_kind).name == name


def test_a_cpu_is_no_accelerator_and_every_entry_names_its_source():
    assert find_accelerator("cpu") is None
    assert all(chip.source for chip in ACCELERATORS)


@pytest.mark.parametrize(
    ("millions", "layers", "width", "mlp", "head", "heads", "ratio"),
    [
        (305, 20, 1024, 4096, 64, 16, 1.10),
        (552, 24, 1280, 5120, 128, 10, 1.08),
        (1143, 26, 1792, 7168, 128, 14, 1.04),
        (1593, 28, 2048, 8192, 128, 16, 1.03),
        (6796, 40, 3584, 14336, 128, 28, 0.99),
    ],
)
def test_chinchillas_count_gives_the_ratios_of_its_table_a4(
    millions, layers, width, mlp, head, heads, ratio
):
    flops = chinchilla_layer_flops_per_token(
        num_layers=layers,
        embed_dim=width,
        mlp_dim=mlp,
        num_heads=heads,
        head_dim=head,
        seq_len=2048,
    )
    assert flops / (6 * millions * 1e6) == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize("recipe", ["llama1_7b", "llama2_70b", "llama3_2_1b"])
def test_every_convention_counts_what_it_says(recipe):
    model = load_recipe(recipe).model
    count, T = count_params(model), 2048
    flops = train_flops_by_convention(model, T)
    assert list(flops) == list(CONVENTIONS)
    assert flops["6ND"] == 6 * count.total
    assert flops["non-embedding"] == 6 * count.non_embedding
    assert flops["full-attention"] == train_flops_per_token(model, T, "full")
    assert flops["causal-attention"] == train_flops_per_token(model, T, "causal")
    # Appendix F: PaLM's count without the logits, and three FLOPs a score for the softmax.
    logits = 6 * model.vocab_size * model.embed_dim
    softmax = 9 * model.num_layers * model.num_heads * T
    assert flops["appendix-f"] == pytest.approx(flops["full-attention"] - logits + softmax)
