"""Each fault of a compiled step is found from its numbers, and a clean step has none."""

import dataclasses

import pytest

from llama_jax.aot.findings import find_faults
from llama_jax.aot.shapes import Matmul
from llama_jax.config import AdamW
from llama_jax.flops import attention_flops_per_token, matmul_params
from llama_jax.recipe import load_recipe
from tests.aot.fakes import (
    collective,
    kernel,
    machine,
    memory,
    program,
    result,
    transfer,
    work,
)

POD = machine("v5p:4x4x8", fsdp=128)
CONFIG = load_recipe("llama2_70b")
CONFIG = dataclasses.replace(
    CONFIG,
    train=dataclasses.replace(CONFIG.train, batch_size=256),
    compute=dataclasses.replace(CONFIG.compute, remat="attention"),
)
MODEL_FLOPS = 6.0 * matmul_params(CONFIG.model) * 256 * 4096 / 128
STATE_GIB = 12 * 68_976_648_192 / 128 / 2**30
CLEAN = {
    "cycles": 17_500_000_000,
    "matmul_flops": MODEL_FLOPS,
    "kernels": [kernel(launches=80, flops=1e14), kernel("splash_mha_dkv", 80, 2e14)],
    "collectives": [
        collective("all-gather", gigabytes=276.0),
        collective("reduce-scatter", gigabytes=1.08, exposure="fused"),
        collective("all-reduce", gigabytes=0.01, exposure="exposed"),
    ],
}


def findings(where=POD, config=CONFIG, held=(STATE_GIB, 60.0), **changes):
    return find_faults(config, where, program(**CLEAN | changes), memory(*held))


def told(**changes):
    return [(one.severity, one.what) for one in findings(**changes)]


def test_a_clean_step_has_no_findings():
    assert told() == []


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"held": (4 * STATE_GIB, 60.0)}, "serious", "held more than once"),
        (
            {"collectives": [collective("all-reduce", gigabytes=136.6)]},
            "costly",
            "Gradients are all-reduced",
        ),
        (
            {"collectives": [collective("all-reduce", gigabytes=1000, exposure="exposed")]},
            "serious",
            "Gradients are all-reduced",
        ),
        (
            {"collectives": [collective("all-reduce", gigabytes=419, stands_for="all-gather")]},
            "serious",
            "all-reduces of buffers that are zero",
        ),
        (
            {"collectives": [collective("all-gather", gigabytes=200.0, exposure="exposed")]},
            "costly",
            "wait for all-gathers",
        ),
        (
            {"collectives": [collective("collective-permute", gigabytes=276, count=9000)]},
            "serious",
            "windowed einsums",
        ),
        (
            {"kernels": [kernel("splash_mha_fwd", 160)]},
            "costly",
            "forward attention kernel runs more than once",
        ),
        ({"work": [work("fusion", 17e9), work("copy", 0.9e9)]}, "costly", "copied to change"),
        ({"matmul_flops": 1.33 * MODEL_FLOPS}, "note", "computed again"),
        ({"matmul_flops": 1.6 * MODEL_FLOPS}, "serious", "more work than recomputation"),
        ({"held": (STATE_GIB, 94.0)}, "note", "Memory is tight"),
        ({"held": (STATE_GIB, 30.0)}, "note", "Memory is left"),
        (
            {"collectives": [collective("all-gather", gigabytes=9000.0)]},
            "costly",
            "more communication than computation",
        ),
        ({"transfers": [transfer(gigabytes=90.0)]}, "serious", "memory of the host"),
        (
            {"transfers": [transfer(gigabytes=20.0, beside_cycles=10**9)]},
            "costly",
            "memory of the host",
        ),
        ({"doubts": ["Line 3: a loop."]}, "note", "could not be read"),
    ],
)
def test_each_fault_is_found_and_nothing_else(changes, severity, words):
    found = findings(**changes)
    assert [one.severity for one in found if words in one.what] == [severity]
    expected = 2 if "exposure='exposed'" in str(changes) and "Gradients" in words else 1
    assert len(found) == expected


def test_a_ring_of_keys_and_values_is_no_fault():
    """Its permutes are no windowed einsums, and its scores are matmuls that the model needs."""
    model = dataclasses.replace(CONFIG.model, max_seq_len=131_072)
    config = dataclasses.replace(
        CONFIG,
        model=model,
        data=dataclasses.replace(CONFIG.data, seq_len=131_072),
        train=dataclasses.replace(CONFIG.train, batch_size=8),
        compute=dataclasses.replace(CONFIG.compute, context="ring"),
    )
    forward = attention_flops_per_token(model, 131_072, "full") / 2 * 8 * 131_072 / 128
    around = collective("collective-permute", axes=("context",), size=8, gigabytes=276, count=9000)
    changes = {
        # As many tokens as in the clean step; gradients need two and a half times what scores did.
        "matmul_flops": MODEL_FLOPS + 3.5 * forward,
        "kernels": [],
        "collectives": [around],
    }
    where = machine("v5p:4x4x8", fsdp=16, context=8)
    held = (8 * STATE_GIB, 60.0)
    assert not [
        one for one in told(where=where, config=config, held=held, **changes) if one[0] == "serious"
    ]
    nowhere = dataclasses.replace(around, axes=(), group_size=1)
    quiet = told(where=where, config=config, held=held, **changes | {"collectives": [nowhere]})
    assert not [one for one in quiet if one[0] == "serious"]
    windowed = dataclasses.replace(around, axes=("fsdp",))
    found = told(where=where, config=config, held=held, **changes | {"collectives": [windowed]})
    assert any("windowed einsums" in what for _, what in found)


@pytest.mark.parametrize(
    ("mesh", "held", "words"),
    [
        # 256 rows of 4,096 tokens; 16 devices split them, 8 what each computes of one.
        ({"fsdp": 16, "tensor": 8}, result(256, 4096, 8192), "along the batch"),
        ({"fsdp": 16, "tensor": 8}, result(256 * 4096, 28672 // 8), "along the batch"),
        ({"fsdp": 16, "context": 8}, result(256, 512, 8192), "along the batch"),
        ({"fsdp": 16, "context": 8}, result(16, 4096, 8192), "along the row"),
        ({"fsdp": 16, "tensor": 8}, result(16, 4096, 28672), "along the MLP"),
        # As they should be: the residual stream, the MLP's part, keys and values whole along a row.
        ({"fsdp": 16, "tensor": 8}, result(16, 4096, 8192), ""),
        ({"fsdp": 16, "tensor": 8}, result(16, 4096, 28672 // 8), ""),
        ({"fsdp": 16, "context": 8}, result(16, 4096, 8, 128), ""),
        # Split along the width in place of the rows; and tokens, which are few bytes.
        ({"fsdp": 16, "tensor": 8}, result(256, 4096, 8192 // 16), ""),
        ({"fsdp": 16, "tensor": 8}, result(256, 4096, 1, dtype="s32"), ""),
        # Weights are gathered whole.
        ({"fsdp": 128}, result(8192, 28672), ""),
    ],
)
def test_an_activation_that_is_whole_where_it_should_be_split_is_told(mesh, held, words):
    found = findings(where=machine("v5p:4x4x8", **mesh), held=(8 * STATE_GIB, 90.0), results=[held])
    told = [one.what for one in found if "whole on each device" in one.what]
    assert len(told) == (1 if words else 0)
    assert all(words in one for one in told)


def test_what_is_padded_is_told_with_its_share_of_all_matmuls():
    wide = Matmul(8192, 28672, 4096, flops=90e12, where="wide")
    narrow = Matmul(8192, 100, 4096, flops=10e12, where="narrow")
    assert not findings(matmuls=[wide])
    (found,) = findings(matmuls=[wide, narrow])
    assert found.evidence.startswith("2.8% on top") and "100 features of narrow" in found.evidence


def test_sums_over_tensor_of_which_a_part_is_kept_are_told():
    one = collective(
        "all-reduce", axes=("tensor",), size=8, gigabytes=90, stands_for="reduce-scatter"
    )
    found = told(where=machine("v5p:4x4x8", fsdp=16, tensor=8), collectives=[one])
    assert ("costly", "Activations are all-reduced where a reduce-scatter would do.") in found
    whole = dataclasses.replace(one, stands_for="")
    found = told(where=machine("v5p:4x4x8", fsdp=16, tensor=8), collectives=[whole])
    assert not [what for _, what in found if "reduce-scatter would do" in what]


def test_the_worst_come_first():
    found = findings(
        matmul_flops=1.33 * MODEL_FLOPS,
        kernels=[kernel("splash_mha_fwd", 160)],
        held=(4 * STATE_GIB, 60.0),
    )
    assert [one.severity for one in found] == ["serious", "costly", "note"]


def test_numbers_are_the_evidence():
    (found,) = findings(kernels=[kernel("splash_mha_fwd", 160)])
    assert found.evidence == "160 launches for 80 layers"
    assert "compute.remat" in found.fix


def test_a_kernel_of_a_library_that_runs_twice_is_told_too():
    (found,) = findings(
        kernels=[
            kernel("cudnn$fmhaScaleBiasSoftmax", 160),
            kernel("cudnn$fmhaScaleBiasSoftmaxBackward", 80),
        ]
    )
    assert "160 launches for 80 layers" in found.evidence and found.fix.startswith(
        "compute.remat=none"
    )


def test_copies_of_the_model_are_told_where_they_take_much_memory():
    copies = machine("v5p:4x4x8", replica=16, fsdp=8)
    held = (12 * 68_976_648_192 / 8 / 2**30, 94.0)
    assert ("note", "Each of 16 groups of devices holds the whole model.") in told(
        where=copies, held=held, collectives=[]
    )


@pytest.mark.parametrize(
    ("topology", "change", "words"),
    [
        ("v6e:16x16", {"mlp_dim": 11008}, ""),
        ("v5e:16x16", {"vocab_size": 5_001}, "vocab_size"),
        ("v6e:16x16", {"embed_dim": 8320}, "embed_dim"),
        ("v5e:16x16", {"embed_dim": 8320}, ""),
        ("v5e:16x16", {"head_dim": 64, "num_heads": 128}, "Heads are narrower"),
    ],
)
def test_sizes_that_do_not_fill_the_matrix_units_are_told(topology, change, words):
    model = dataclasses.replace(CONFIG.model, **change)
    config = dataclasses.replace(CONFIG, model=model)
    where = machine(topology, fsdp=256)
    found = [
        one.what
        for one in findings(where=where, config=config)
        if "matrix units" in one.what and "model." in one.what + one.evidence
    ]
    assert len(found) == (1 if words else 0)
    assert all(words in one for one in found)


@pytest.mark.parametrize(
    ("optimizer", "bytes_of_all"),
    [
        (AdamW(peak_lr=3e-4, state_dtype="bfloat16"), 8 * 68_976_648_192),
        (AdamW(peak_lr=3e-4, state_dtype="int8"), 421.3e9),
    ],
)
def test_a_state_held_twice_is_seen_in_fewer_bits_too(optimizer, bytes_of_all):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    once = bytes_of_all / 128 / 2**30
    assert findings(config=config, held=(once, 60.0)) == ()
    (found,) = findings(config=config, held=(1.4 * once, 60.0))
    assert "held more than once" in found.what
