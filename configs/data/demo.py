"""The machine's own Python sources and documentation, with a tokenizer trained on them.

Command: llama-jax data build demo --out demo_run/data
"""

from llama_jax.config import BuildConfig, PythonEnvironmentSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="demo",
        sources=(PythonEnvironmentSource(max_bytes=25_000_000),),
        tokenizer=TokenizerTraining(vocab_size=2048, sample_bytes=8_000_000),
        held_out_fraction=0.02,
        shard_tokens=4_000_000,
    )
