"""The 1M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_1m --data.directory DIR
Hardware:  2 CPU cores.
Expected:  951,360 parameters on 19,005,440 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 580 updates. Any checkpoint before the cooldown can be
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
        name="ladder_1m",
        model=ModelConfig(
            num_layers=8,
            embed_dim=64,
            mlp_dim=192,
            num_heads=2,
            num_kv_heads=2,
            head_dim=32,
            vocab_size=8192,
            max_seq_len=1024,
            rope=PlainRope(theta=10_000.0),
            norm_eps=1e-5,
            tie_embeddings=True,
        ),
        data=DataConfig(
            seq_len=1024,
        ),
        train=TrainConfig(num_steps=580, batch_size=32),
        optimizer=AdamW(peak_lr=3e-3),
        schedule=WarmupStableDecay(warmup_steps=29, decay_steps=116),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=2),
    )
