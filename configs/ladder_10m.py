"""The 10M rung of the ladder for scaling studies; needs an 8,192-piece tokenizer.

Command:   llama-jax train ladder_10m --data.directory DIR
Hardware:  2 CPU cores, or any accelerator.
Expected:  10,130,688 parameters on 202,506,240 tokens, about 20 a parameter (Chinchilla,
           arXiv:2203.15556), in 3,090 updates. Any checkpoint before the cooldown can be
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
        name="ladder_10m",
        model=ModelConfig(
            num_layers=10,
            embed_dim=256,
            mlp_dim=704,
            num_heads=4,
            num_kv_heads=4,
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
        train=TrainConfig(num_steps=3090, batch_size=64),
        optimizer=AdamW(peak_lr=2e-3),
        schedule=WarmupStableDecay(warmup_steps=154, decay_steps=618),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=2),
    )
