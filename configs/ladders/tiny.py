"""Four sizes below 0.6M parameters at three lengths each: the machinery of a ladder, in minutes.

Command:   llama-jax scaling ladder configs/ladders/tiny.py --out ladder --data demo_run/data
Hardware:  2 CPU cores.
Expected:  12 cooled runs, the 3 of the largest size held out of the fit. The runs are too short for
           a law that says anything of larger ones: one machine's text gave predictions 3.5% to 8.4%
           too high, another's gave none (291k parameters lost to 158k at every length), and the
           fit said so.
"""

from llama_jax.config import (
    AdamW,
    ComputeConfig,
    DataConfig,
    EvaluateConfig,
    LadderConfig,
    LogConfig,
    ModelConfig,
    RunConfig,
    Rung,
    TrainConfig,
    WarmupStableDecay,
)


def model(num_layers: int, embed_dim: int) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        embed_dim=embed_dim,
        mlp_dim=3 * embed_dim,
        num_heads=embed_dim // 16,
        num_kv_heads=embed_dim // 16,
        head_dim=16,
        vocab_size=2048,
        max_seq_len=128,
        tie_embeddings=True,
    )


def config() -> LadderConfig:
    shapes = ((2, 32), (2, 48), (3, 64), (3, 96))
    return LadderConfig(
        name="tiny",
        base=RunConfig(
            name="tiny",
            model=model(2, 32),
            data=DataConfig(directory="demo_run/data", seq_len=128),
            train=TrainConfig(num_steps=100, batch_size=16),
            optimizer=AdamW(peak_lr=3e-3),
            schedule=WarmupStableDecay(warmup_steps=10, decay_steps=20),
            compute=ComputeConfig(remat="none", loss_chunks=1),
            evaluate=EvaluateConfig(num_batches=16),
            log=LogConfig(every_steps=20),
        ),
        rungs=tuple(
            Rung(model=model(*shape), peak_lr=4e-3, batch_size=16, num_steps=(100, 200, 400))
            for shape in shapes
        ),
    )
