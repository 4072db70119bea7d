"""LLaMA-3.2 3B: the small shape with tied embeddings (Meta's model card, 2024).

Command:   llama-jax train llama3_2_3b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 38.6 GB over all chips.
           Published: 460,000 H100-80GB hours.
Expected:  3,212,749,824 parameters, 8,999,999,111,168 tokens in 2,145,767 updates.

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
        name="llama3_2_3b",
        model=ModelConfig(
            num_layers=28,
            embed_dim=3072,
            mlp_dim=8192,
            num_heads=24,
            num_kv_heads=8,
            head_dim=128,
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
