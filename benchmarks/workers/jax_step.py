"""One training step of ours, as `llama-jax train` runs it; started by `train_step.py`."""

import json
import sys
import time

from protocol import serve

from llama_jax.train.backend import compiler_options, keep_freed_memory


def main() -> None:
    """Serves rounds of the step that argv describes as JSON."""
    case = json.loads(sys.argv[1])
    keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import numpy as np

    from llama_jax.config import MeshConfig
    from llama_jax.data.batch import Batch
    from llama_jax.sharding import make_mesh, use_layout
    from llama_jax.train.program import begin_compiling

    config = run_config(case)
    mesh = make_mesh(MeshConfig())
    with use_layout(mesh):
        program = begin_compiling(config, mesh)
        state = program.first_state()
        train_step = program.step_after(0)
    B, T = case["batch_size"], case["seq_len"]
    tokens = np.random.default_rng(0).integers(0, case["vocab_size"], (B, T + 1), np.int32)
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    ones = np.ones((B, T), np.int32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), positions, ones)

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch, np.float32(3e-4))
        return float(metrics["loss_nats_per_token"])

    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    multiply = jax.jit(jnp.matmul, compiler_options=compiler_options(jax.devices("cpu")[0]))

    def matmul() -> float:
        times = []
        for _ in range(8):
            start = time.perf_counter()
            multiply(square, square).block_until_ready()
            times.append(time.perf_counter() - start)
        return min(times)

    serve(case["name"], step, matmul)


def run_config(case: dict):
    """The recipe of a size."""
    from llama_jax.config import (
        AdamW,
        ComputeConfig,
        DataConfig,
        ModelConfig,
        RunConfig,
        TrainConfig,
        WarmupStableDecay,
    )

    return RunConfig(
        name=case["name"],
        model=ModelConfig(
            num_layers=case["num_layers"],
            embed_dim=case["embed_dim"],
            mlp_dim=case["mlp_dim"],
            num_heads=case["num_heads"],
            num_kv_heads=case["num_heads"],
            head_dim=64,
            vocab_size=case["vocab_size"],
            max_seq_len=case["seq_len"],
        ),
        data=DataConfig(directory="unused", seq_len=case["seq_len"]),
        train=TrainConfig(num_steps=1000, batch_size=case["batch_size"]),
        optimizer=AdamW(peak_lr=3e-4),
        schedule=WarmupStableDecay(warmup_steps=10, decay_steps=100),
        compute=ComputeConfig(dtype=case["dtype"], remat="none", loss_chunks=case["loss_chunks"]),
    )


if __name__ == "__main__":
    main()
