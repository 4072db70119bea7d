"""LLaMA-3.1 405B: 15.6T tokens at an 8,192 context (Llama Team 2024, arXiv:2407.21783).

Command:   llama-jax train llama3_1_405b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 4,870.2 GB over all chips.
           Published: 30.84M H100-80GB hours.
Expected:  405,853,388,800 parameters, 15,599,992,307,712 tokens in 929,832 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
Published: the batch grows from 4M tokens to 8M (after 252M tokens) and 16M (after 2.87T), and
the cosine takes 1.2M updates. A recipe has one batch size: this one starts at 16M, so that
the same tokens take fewer updates.
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


def config() -> RunConfig:
    return RunConfig(
        name="llama3_1_405b",
        model=ModelConfig(
            num_layers=126,
            embed_dim=16384,
            mlp_dim=53248,
            num_heads=128,
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
        train=TrainConfig(num_steps=929_832, batch_size=2048),
        optimizer=AdamW(peak_lr=8e-5),
        schedule=Cosine(warmup_steps=8000, final_fraction=0.01),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
