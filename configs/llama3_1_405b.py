"""LLaMA-3.1 405B: 15.6T tokens at an 8,192 context (Llama Team 2024, arXiv:2407.21783).

Command:   llama-jax train llama3_1_405b --data.directory DIR
Hardware:  a pod; weights and AdamW's moments in float32 take 4,870.2 GB over all chips.
           Published: 30.84M H100-80GB hours.
Expected:  405,853,388,800 parameters, 15,600,000,696,320 tokens in 1,100,928 updates.

The mixture is not published: every source weighs as its tokens unless `data.mixture` says more.
Published (section 3.4.1): batches of 4M tokens, of 8M after 252M tokens, of 16M after 2.87T. Also
published, and not done here: the first 252M tokens came in rows of 4,096, and the cosine would
end at 1.2M updates, after the last one; here it ends with the run. For those shorter rows, make
them a run of their own, stop it once step 60 is saved, and branch off:

    llama-jax train llama3_1_405b --data.directory DIR --run-dir runs/short --data.seq-len 4096 \
        --train.batch-size 1024 --checkpoint.every-steps 60
    llama-jax train llama3_1_405b --data.directory DIR --init-from runs/short@60
"""

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    Cosine,
    DataConfig,
    Llama3Rope,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from llama_jax.config.pod import PodSettings

PODS = {
    "v4": PodSettings(tokens=4_096, remat="offload_inputs", min_chips=1_024, tensor=2),
    "v5p": PodSettings(tokens=4_096, remat="qkv", min_chips=1_024, tensor=2),
    "tpu7x": PodSettings(tokens=8_192, remat="full", min_chips=256),
}


def config() -> RunConfig:
    return RunConfig(
        name="llama3_1_405b",
        model=ModelConfig(
            num_layers=126,
            embed_dim=16384,
            mlp_dim=53248,
            num_heads=128,
            num_kv_heads=8,
            head_dim=128,
            vocab_size=128_256,
            max_seq_len=131_072,
            rope=Llama3Rope(theta=500_000.0, factor=8.0, original_seq_len=8192),
            norm_eps=1e-5,
        ),
        data=DataConfig(
            seq_len=8192,
        ),
        train=TrainConfig(
            num_steps=1_100_928,
            batch_size=512,
            batch_ramp=((60, 1024), (342_161, 2048)),
        ),
        optimizer=AdamW(peak_lr=8e-5),
        schedule=Cosine(warmup_steps=8000, final_fraction=0.01),
        checkpoint=CheckpointConfig(every_steps=1000, keep_last=2, keep_every_steps=50_000),
    )
