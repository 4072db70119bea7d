"""LLaMA-2 70B: 2.0T tokens at a 4,096 context (Touvron et al. 2023, arXiv:2307.09288).

Command:   llama-jax train llama2_70b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 827.7 GB over all chips.
           Published: 1,720,320 A100-80GB hours.
Expected:  68,976,648,192 parameters, 1,999,999,336,448 tokens in 476,837 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    Cosine,
    DataConfig,
    ModelConfig,
    PlainRope,
    RunConfig,
    TrainConfig,
)
from llama_jax.config.pod import PodSettings

PODS = {
    "v4": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "v5e": PodSettings(tokens=8_192, remat="offload_inputs", min_chips=256),
    "v5p": PodSettings(tokens=8_192, remat="gate", min_chips=64),
    "v6e": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "tpu7x": PodSettings(tokens=8_192, remat="gate", min_chips=64),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama2_70b",
        model=ModelConfig(
            num_layers=80,
            embed_dim=8192,
            mlp_dim=28672,
            num_heads=64,
            num_kv_heads=8,
            head_dim=128,
            vocab_size=32_000,
            max_seq_len=4096,
            rope=PlainRope(theta=10_000.0),
            norm_eps=1e-5,
        ),
        data=DataConfig(
            seq_len=4096,
        ),
        train=TrainConfig(num_steps=476_837, batch_size=1024),
        optimizer=AdamW(peak_lr=1.5e-4),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
