"""LLaMA-3.1 70B: LLaMA-3 with RoPE stretched to 131,072 (Llama Team 2024, arXiv:2407.21783).

Command:   llama-jax train llama3_1_70b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 846.6 GB over all chips.
           Published: 7.0M H100-80GB hours.
Expected:  70,553,706,496 parameters, 15,000,001,314,816 tokens in 3,576,279 updates.

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
    "v4": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "v5p": PodSettings(tokens=8_192, remat="gate", min_chips=128),
    "v5e": PodSettings(tokens=8_192, remat="offload_inputs", min_chips=256),
    "v6e": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "tpu7x": PodSettings(tokens=8_192, remat="gate", min_chips=64),
    "h100": PodSettings(tokens=8_192, remat="full", min_chips=64, shards=64),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama3_1_70b",
        model=ModelConfig(
            num_layers=80,
            embed_dim=8192,
            mlp_dim=28672,
            num_heads=64,
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
        optimizer=AdamW(peak_lr=1.5e-4),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
