"""LLaMA-3.1 8B: LLaMA-3 with RoPE stretched to 131,072 (Llama Team 2024, arXiv:2407.21783).

Command:   llama-jax train llama3_1_8b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 96.4 GB over all chips.
           Published: 1.46M H100-80GB hours.
Expected:  8,030,261,248 parameters, 15,000,001,314,816 tokens in 3,576,279 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
Rows are the 8,192 tokens of the main phase; the stretch serves the long-context phase that
follows it (`--data.seq-len 131072`). Batch, warm-up and cosine are LLaMA-2's.
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    Cosine,
    DataConfig,
    Llama3Rope,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from llama_jax.config.pod import PodSettings

PODS = {
    "v4": PodSettings(tokens=16_384, remat="qkv", min_chips=64),
    "v5e": PodSettings(tokens=8_192, remat="attention", min_chips=64),
    "v5p": PodSettings(tokens=16_384, remat="gate", min_chips=16),
    "v6e": PodSettings(tokens=16_384, remat="qkv", min_chips=64),
    "tpu7x": PodSettings(tokens=16_384, remat="gate", min_chips=8),
    "h100": PodSettings(tokens=16_384, remat="qkv", min_chips=8, shards=8),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama3_1_8b",
        model=ModelConfig(
            num_layers=32,
            embed_dim=4096,
            mlp_dim=14336,
            num_heads=32,
            num_kv_heads=8,
            head_dim=128,
            vocab_size=128_256,
            max_seq_len=131_072,
            rope=Llama3Rope(theta=500_000.0, factor=8.0, original_seq_len=8192),
            norm_eps=1e-5,
        ),
        data=DataConfig(
            seq_len=8192,
        ),
        train=TrainConfig(num_steps=3_576_279, batch_size=512),
        optimizer=AdamW(peak_lr=3e-4),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
