"""The 3M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_3m --data.directory DIR
Hardware:  2 CPU cores.
Expected:  2,754,688 parameters on 55,050,240 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 1,680 updates. Any checkpoint before the cooldown can be
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
        name="ladder_3m",
        model=ModelConfig(
            num_layers=8,
            embed_dim=128,
            mlp_dim=384,
            num_heads=4,
            num_kv_heads=4,
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
        train=TrainConfig(num_steps=1680, batch_size=32),
        optimizer=AdamW(peak_lr=3e-3),
        schedule=WarmupStableDecay(warmup_steps=84, decay_steps=336),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=2),
    )
