"""LLaMA-3 70B: 15T tokens at an 8,192 context (Llama Team 2024, arXiv:2407.21783).

Command:   llama-jax train llama3_70b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 846.6 GB over all chips.
           Published: 6.4M H100-80GB hours.
Expected:  70,553,706,496 parameters, 15,000,001,314,816 tokens in 3,576,279 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
Only the peak learning rate and the tokens are published for this size; batch, warm-up and the
shape of the cosine are LLaMA-2's.
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
    "v5p": PodSettings(tokens=8_192, remat="gate", min_chips=128),
    "v5e": PodSettings(tokens=8_192, remat="offload_inputs", min_chips=256),
    "v6e": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "tpu7x": PodSettings(tokens=8_192, remat="gate", min_chips=64),
    "h100": PodSettings(tokens=8_192, remat="full", min_chips=64, shards=64),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama3_70b",
        model=ModelConfig(
            num_layers=80,
            embed_dim=8192,
            mlp_dim=28672,
            num_heads=64,
            num_kv_heads=8,
            head_dim=128,
            vocab_size=128_256,
            max_seq_len=8192,
            rope=PlainRope(theta=500_000.0),
            norm_eps=1e-5,
        ),
        data=DataConfig(
            seq_len=8192,
        ),
        train=TrainConfig(num_steps=3_576_279, batch_size=512),
        optimizer=AdamW(peak_lr=1.5e-4),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
