"""Steps compiled for TPUs that are not here do the matmuls that are counted by hand."""

import importlib.util

import pytest

from llama_jax.aot.compile import compile_program
from llama_jax.aot.program import Program, read_program
from llama_jax.aot.topology import devices_of, prepare_environment
from llama_jax.config import (
    AdamW,
    ComputeConfig,
    DataConfig,
    LogConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    WarmupStableDecay,
)
from llama_jax.flops import attention_flops_per_token, count_params, matmul_params
from llama_jax.hardware import parse_pod
from llama_jax.sharding import make_mesh
from llama_jax.train.program import lower_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu, the compiler of TPUs, is not installed (extra `tpu`)",
    ),
]

MODEL = ModelConfig(
    num_layers=3,
    embed_dim=256,
    mlp_dim=768,
    num_heads=4,
    num_kv_heads=2,
    head_dim=128,
    vocab_size=2048,
    max_seq_len=512,
)
ROWS, SEQ_LEN = 8, 512


def compiled(remat, topology: str, mesh: MeshConfig) -> tuple[Program, float]:
    """The program, and the tokens of a step for each device."""
    config = RunConfig(
        name="tiny",
        model=MODEL,
        data=DataConfig(seq_len=SEQ_LEN),
        train=TrainConfig(num_steps=10, batch_size=ROWS),
        optimizer=AdamW(peak_lr=1e-3),
        schedule=WarmupStableDecay(warmup_steps=2, decay_steps=4),
        compute=ComputeConfig(dtype="bfloat16", remat=remat, attention="splash", loss_chunks=4),
        log=LogConfig(every_steps=1, tensorboard=False),
    )
    prepare_environment()
    devices = make_mesh(mesh, devices_of(parse_pod(topology)))
    text = compile_program(lower_step(config, devices, ROWS), {}).text
    return read_program(text, devices.shape), ROWS * SEQ_LEN / devices.size


def recomputed_matmul_params(remat: str) -> int:
    """The last matmul of a block is not needed again: the next block's input is there."""
    layers = count_params(MODEL).attention + count_params(MODEL).mlp
    down = MODEL.num_layers * MODEL.mlp_dim * MODEL.embed_dim
    return layers - down if remat == "full" else 0


def swaps_flops_per_token(remat: str) -> int:
    """TPUs swap the halves of a head for RoPE by a matmul with a permutation (ops/rope.py)."""
    heads = MODEL.num_layers * (MODEL.num_heads + MODEL.num_kv_heads)
    passes = 3 if remat == "full" else 2
    return 2 * passes * heads * MODEL.head_dim**2


@pytest.mark.parametrize(
    ("remat", "topology", "forward_launches"),
    [("full", "v5e:2x2", 2), ("dots", "v5e:2x2", 1), ("full", "tpu7x:2x2x1", 2)],
)
def test_matmuls_and_kernels_are_those_counted_by_hand(remat, topology, forward_launches):
    program, tokens = compiled(remat, topology, MeshConfig())
    params = 6 * matmul_params(MODEL) + 2 * recomputed_matmul_params(remat)
    by_hand = (params + swaps_flops_per_token(remat)) * tokens
    assert program.matmul_flops == pytest.approx(by_hand, rel=0.01)

    kernels = {"fwd" if "fwd" in one.name else "bwd": one for one in program.kernels}
    forward = attention_flops_per_token(MODEL, SEQ_LEN, "causal") * tokens
    assert kernels["fwd"].launches == forward_launches * MODEL.num_layers
    assert kernels["fwd"].flops == pytest.approx(forward_launches * forward)
    assert kernels["bwd"].launches == MODEL.num_layers
    assert kernels["bwd"].flops == pytest.approx(2.5 * forward)

    assert program.cycles > 0
    assert {one.axes for one in program.collectives} == {("fsdp",)}
    assert not program.doubts


def test_axes_of_the_mesh_are_told_apart():
    program, _ = compiled("full", "v5e:2x4", MeshConfig(replica=2, fsdp=2, tensor=2))
    axes = {axis for one in program.collectives for axis in one.axes}
    assert axes == {"replica", "fsdp", "tensor"}
    gathers = [one for one in program.collectives if one.kind == "all-gather"]
    assert gathers
    assert all("replica" not in one.axes for one in gathers)
