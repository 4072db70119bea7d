"""Twenty updates that are made here and in PyTorch: their config and their batches."""

import numpy as np

from llama_jax.config import (
    AdamW,
    ComputeConfig,
    Cosine,
    DataConfig,
    LinearRope,
    Llama3Rope,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
)
from llama_jax.data.batch import Batch

NUM_STEPS, B, T = 20, 4, 48
GROUPED = ModelConfig(
    num_layers=2,
    embed_dim=64,
    mlp_dim=112,
    num_heads=8,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=256,
    max_seq_len=T,
)


def rope_parameters(config: ModelConfig) -> dict[str, object]:
    """As transformers has them."""
    match config.rope:
        case PlainRope(theta=theta):
            return {"rope_type": "default", "rope_theta": theta}
        case LinearRope(theta=theta, factor=factor):
            return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
        case Llama3Rope() as rope:
            return {
                "rope_type": "llama3",
                "rope_theta": rope.theta,
                "factor": rope.factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": rope.original_seq_len,
            }


def run_config(model: ModelConfig, accumulation_steps: int) -> RunConfig:
    return RunConfig(
        name="parity",
        model=model,
        data=DataConfig(seq_len=T),
        train=TrainConfig(num_steps=NUM_STEPS, batch_size=B, accumulation_steps=accumulation_steps),
        # Clipping binds at first; decay is strong enough to show in twenty updates.
        optimizer=AdamW(peak_lr=1e-2, weight_decay=1.0, clip_norm=0.5),
        schedule=Cosine(warmup_steps=5),
        compute=ComputeConfig(dtype="float32", remat="full", loss_chunks=4),
    )


def make_batches() -> list[Batch]:
    """Rows of one document each, of different lengths; frequent ids, so that losses fall."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(NUM_STEPS):
        tokens = np.minimum(rng.geometric(0.03, (B, T + 1)), 255).astype(np.int32)
        mask = (np.arange(T) < rng.integers(T // 2, T + 1, (B, 1))).astype(np.float32)
        places = np.tile(np.arange(T, dtype=np.int32), (B, 1))
        batches.append(
            Batch(tokens[:, :-1], tokens[:, 1:].copy(), mask, places, np.ones_like(places))
        )
    return batches
