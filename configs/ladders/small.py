"""Seven sizes from 0.2M to 10M parameters on the machine's own Python sources.

Command:   llama-jax scaling ladder configs/ladders/small.py --out ladder --data demo_run/data
Hardware:  2 CPU cores; 3.4e13 FLOPs (6ND) in all, those of the held-out documents not counted.
Expected:  18 cooled runs; the largest size, held out of the fit, predicted at 5.354 nats per token
           (5.290 to 5.426) and measured at 5.324. docs/scaling.md has every loss.
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
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

# Layers, width and MLP width: 0.21M, 0.44M, 0.80M, 1.6M, 2.7M, 4.9M and 9.9M parameters without
# the embedding, 0.34M to 10.6M with it, which is how the law counts them.
# Beside each its learning rate, seeds, and updates that come near to 6ND of .5, 1, 2, 4 and 8e12.
_RUNGS = (
    ((4, 64, 192), 2e-3, (0, 1), (480, 960, 1920)),
    ((4, 96, 256), 1.7e-3, (0, 1), (510, 1020)),
    ((4, 128, 352), 1.5e-3, (0,), (300, 610, 1220)),
    ((5, 160, 448), 1.2e-3, (0,), (340, 680)),
    ((6, 192, 512), 1e-3, (0,), (430,)),
    ((8, 224, 608), 0.9e-3, (0,), (250,)),
    ((8, 320, 864), 0.6e-3, (0,), (250,)),
)


def model(num_layers: int, embed_dim: int, mlp_dim: int) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_heads=embed_dim // 32,
        num_kv_heads=embed_dim // 32,
        head_dim=32,
        vocab_size=2048,
        max_seq_len=128,
        tie_embeddings=True,
    )


def config() -> LadderConfig:
    return LadderConfig(
        name="small",
        base=RunConfig(
            name="small",
            model=model(4, 64, 192),
            data=DataConfig(directory="demo_run/data", seq_len=128),
            train=TrainConfig(num_steps=100, batch_size=4),
            # Batches of 512 tokens are noisy: the second moment has to remember for longer.
            optimizer=AdamW(peak_lr=3e-3, beta2=0.99, eps=1e-8),
            schedule=WarmupStableDecay(warmup_steps=10, decay_steps=20),
            compute=ComputeConfig(remat="none", loss_chunks=1),
            checkpoint=CheckpointConfig(keep_last=1),
            evaluate=EvaluateConfig(num_batches=128),
            log=LogConfig(every_steps=10),
        ),
        rungs=tuple(
            Rung(model=model(*shape), peak_lr=lr, batch_size=4, num_steps=steps, seeds=seeds)
            for shape, lr, seeds, steps in _RUNGS
        ),
    )
