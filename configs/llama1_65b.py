"""LLaMA-1 65B: 1.4T tokens at a 2,048 context (Touvron et al. 2023, arXiv:2302.13971).

Command:   llama-jax train llama1_65b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 783.4 GB over all chips.
           Published: 1,022,362 A100-80GB hours.
Expected:  65,285,660,672 parameters, 1,399,999,954,944 tokens in 333,786 updates.

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
    "v4": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "v5e": PodSettings(tokens=8_192, remat="offload_inputs", min_chips=256),
    "v5p": PodSettings(tokens=8_192, remat="gate", min_chips=128),
    "v6e": PodSettings(tokens=8_192, remat="full", min_chips=256),
    "tpu7x": PodSettings(tokens=8_192, remat="gate", min_chips=64),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama1_65b",
        model=ModelConfig(
            num_layers=80,
            embed_dim=8192,
            mlp_dim=22016,
            num_heads=64,
            num_kv_heads=64,
            head_dim=128,
            vocab_size=32_000,
            max_seq_len=2048,
            rope=PlainRope(theta=10_000.0),
            norm_eps=1e-5,
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
        train=TrainConfig(num_steps=333_786, batch_size=2048),
        optimizer=AdamW(peak_lr=1.5e-4, eps=1e-8),
        schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
