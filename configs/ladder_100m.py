"""The 100M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_100m --data.directory DIR
Hardware:  one accelerator.
Expected:  105,404,160 parameters on 2,107,637,760 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 8,040 updates. Any checkpoint before the cooldown can be
           cooled down by itself, which gives a second budget for little more.
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
    WarmupStableDecay,
)


def config() -> RunConfig:
    return RunConfig(
        name="ladder_100m",
        model=ModelConfig(
            num_layers=14,
            embed_dim=768,
            mlp_dim=2048,
            num_heads=12,
            num_kv_heads=12,
            head_dim=64,
            vocab_size=8192,
            max_seq_len=1024,
            rope=PlainRope(theta=10_000.0),
            norm_eps=1e-5,
            tie_embeddings=True,
        ),
        data=DataConfig(
            seq_len=1024,
        ),
        train=TrainConfig(num_steps=8040, batch_size=256),
        optimizer=AdamW(peak_lr=1e-3),
        schedule=WarmupStableDecay(warmup_steps=402, decay_steps=1608),
        checkpoint=CheckpointConfig(every_steps=400, keep_last=2),
    )
