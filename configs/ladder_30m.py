"""The 30M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_30m --data.directory DIR
Hardware:  one accelerator.
Expected:  32,926,656 parameters on 657,981,440 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 5,020 updates. Any checkpoint before the cooldown can be
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
        name="ladder_30m",
        model=ModelConfig(
            num_layers=12,
            embed_dim=448,
            mlp_dim=1216,
            num_heads=7,
            num_kv_heads=7,
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
        train=TrainConfig(num_steps=5020, batch_size=128),
        optimizer=AdamW(peak_lr=1.5e-3),
        schedule=WarmupStableDecay(warmup_steps=251, decay_steps=1004),
        checkpoint=CheckpointConfig(every_steps=200, keep_last=2),
    )
