"""The 300M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_300m --data.directory DIR
Hardware:  one to eight accelerators.
Expected:  303,873,024 parameters on 6,076,497,920 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 11,590 updates. Any checkpoint before the cooldown can be
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
        name="ladder_300m",
        model=ModelConfig(
            num_layers=23,
            embed_dim=1024,
            mlp_dim=2816,
            num_heads=16,
            num_kv_heads=16,
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
        train=TrainConfig(num_steps=11_590, batch_size=512),
        optimizer=AdamW(peak_lr=6e-4),
        schedule=WarmupStableDecay(warmup_steps=579, decay_steps=2318),
        checkpoint=CheckpointConfig(every_steps=500, keep_last=2),
    )
