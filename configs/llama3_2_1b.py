"""LLaMA-3.2 1B: the small shape with tied embeddings (Meta's model card, 2024).

Command:   llama-jax train llama3_2_1b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 14.8 GB over all chips.
           Published: 370,000 H100-80GB hours.
Expected:  1,235,814,400 parameters, 8,999,999,111,168 tokens in 2,145,767 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
Meta pruned and distilled it from LLaMA-3.1 on up to 9T tokens; this recipe trains the shape from
scratch with LLaMA-3 8B's learning rate and LLaMA-2's batch, warm-up and cosine.
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
        name="llama3_2_1b",
        model=ModelConfig(
            num_layers=16,
            embed_dim=2048,
            mlp_dim=8192,
            num_heads=32,
            num_kv_heads=8,
            head_dim=64,
            vocab_size=128_256,
            max_seq_len=131_072,
            rope=Llama3Rope(theta=500_000.0, factor=32.0, original_seq_len=8192),
            norm_eps=1e-5,
            tie_embeddings=True,
        ),
        data=DataConfig(
            seq_len=8192,
        ),
        train=TrainConfig(num_steps=2_145_767, batch_size=512),
        optimizer=AdamW(peak_lr=3e-4),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
