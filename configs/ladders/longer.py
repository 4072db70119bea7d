"""Seven sizes from 0.2M to 10M parameters on up to 3.3M tokens, one learning rate for all (muP).

Command:   llama-jax scaling ladder configs/ladders/longer.py --out ladder --data demo_run/data
Hardware:  2 CPU cores; 5.4e14 FLOPs (6ND) in all. Its first runs took a second of a processor for
           4.3e10 of them, starts and scores counted: 3.5 hours of one, or about 2 of both.
Expected:  27 cooled runs of 6 sizes, then the largest size, longer than all of them, held out.
           Only the first runs were trained yet (docs/scaling.md).
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
    MuP,
    RunConfig,
    Rung,
    TrainConfig,
    WarmupStableDecay,
)

# Layers and width, seeds, and updates of 256 tokens. Lengths double, and so, nearly, do sizes, so
# that several share a budget. Large sizes begin later: with 1,600 updates 1.54M parameters are no
# better than 0.80M yet. The last one is held out: larger and longer than all others.
_RUNGS = (
    ((4, 48), (0, 1), (1600, 3200, 6400, 12800)),
    ((5, 64), (0, 1), (1600, 3200, 6400, 12800)),
    ((5, 96), (0,), (1600, 3200, 6400, 12800)),
    ((6, 128), (0,), (3200, 6400, 12800)),
    ((6, 192), (0,), (6400, 12800)),
    ((7, 256), (0,), (6400, 12800)),
    ((7, 320), (0,), (16000,)),
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
    return LadderConfig(
        name="longer",
        base=RunConfig(
            name="longer",
            model=model(5, 64),
            data=DataConfig(directory="demo_run/data", seq_len=128),
            # Small batches, for more updates of the same tokens.
            train=TrainConfig(num_steps=100, batch_size=2),
            # They are noisy: the second moment has to remember for longer.
            optimizer=AdamW(peak_lr=3e-3, beta2=0.99, eps=1e-8),
            schedule=WarmupStableDecay(warmup_steps=10, decay_steps=20),
            parameterisation=MuP(base_embed_dim=64, base_head_dim=16),
            compute=ComputeConfig(remat="none", loss_chunks=1),
            checkpoint=CheckpointConfig(keep_last=1),
            evaluate=EvaluateConfig(num_batches=512),
            log=LogConfig(every_steps=50),
        ),
        rungs=tuple(
            Rung(model=model(*shape), peak_lr=3e-3, batch_size=2, num_steps=steps, seeds=seeds)
            for shape, seeds, steps in _RUNGS
        ),
    )
