"""A 1M-parameter LLaMA on the machine's own Python sources: the whole job in minutes.

Command:  make demo
Hardware: a laptop; 2 CPU cores are enough.
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvaluateConfig,
    LogConfig,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
    WarmupStableDecay,
)


def config() -> RunConfig:
    return RunConfig(
        name="demo",
        model=ModelConfig(
            num_layers=4,
            embed_dim=128,
            mlp_dim=384,
            num_heads=4,
            num_kv_heads=2,
            head_dim=32,
            vocab_size=2048,
            max_seq_len=256,
            rope=PlainRope(theta=10_000.0),
            tie_embeddings=True,
        ),
        data=DataConfig(directory="demo_run/data", seq_len=256),
        train=TrainConfig(num_steps=300, batch_size=16),
        optimizer=AdamW(peak_lr=3e-3),
        schedule=WarmupStableDecay(warmup_steps=30, decay_steps=75),
        compute=ComputeConfig(remat="none", loss_chunks=4),
        checkpoint=CheckpointConfig(every_steps=100),
        evaluate=EvaluateConfig(every_steps=100),
        log=LogConfig(every_steps=5),
    )
