"""LLaMA-1 7B: 1.0T tokens at a 2,048 context (Touvron et al. 2023, arXiv:2302.13971).

Command:   llama-jax train llama1_7b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 80.9 GB over all chips.
           Published: 82,432 A100-80GB hours.
Expected:  6,738,415,616 parameters, 1,000,001,765,376 tokens in 238,419 updates.

The mixture is the paper's Table 1; AdamW's epsilon is not in the paper: PyTorch's default.
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
    "v4": PodSettings(tokens=16_384, remat="qkv", min_chips=64),
    "v5e": PodSettings(tokens=8_192, remat="gate", min_chips=64),
    "v5p": PodSettings(tokens=16_384, remat="qkv", min_chips=16),
    "v6e": PodSettings(tokens=16_384, remat="qkv", min_chips=32),
    "tpu7x": PodSettings(tokens=16_384, remat="qkv", min_chips=8),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama1_7b",
        model=ModelConfig(
            num_layers=32,
            embed_dim=4096,
            mlp_dim=11008,
            num_heads=32,
            num_kv_heads=32,
            head_dim=128,
            vocab_size=32_000,
            max_seq_len=2048,
            rope=PlainRope(theta=10_000.0),
            norm_eps=1e-6,
        ),
        data=DataConfig(
            mixture=(
                ("common_crawl", 0.67),
                ("c4", 0.15),
                ("github", 0.045),
                ("wikipedia", 0.045),
                ("books", 0.045),
                ("arxiv", 0.025),
                ("stack_exchange", 0.02),
            ),
            seq_len=2048,
        ),
        train=TrainConfig(num_steps=238_419, batch_size=2048),
        optimizer=AdamW(peak_lr=3e-4, eps=1e-8),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
