"""A plan written as a recipe that `llama-jax train` takes."""

from pathlib import Path

from llama_jax.recipe import to_json
from llama_jax.scaling.plan import Plan
from llama_jax.scaling.realised import Realised, to_recipe


def write_recipe(path: Path, plan: Plan, real: Realised) -> None:
    """Writes a .py or .json recipe, which must not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = to_recipe(real, path.stem)
    text = to_json(recipe) if path.suffix == ".json" else _python(path, plan, real)
    with path.open("x") as file:
        file.write(text)


def _python(path: Path, plan: Plan, real: Realised) -> str:
    config, shape = to_recipe(real, path.stem), real.shape
    first = plan.laws[0]
    epochs = (
        f"\n           {plan.request.unique_tokens:,.0f} unique tokens are read "
        f"{real.at.tokens / plan.request.unique_tokens:.3g} times."
        if plan.request.unique_tokens
        else ""
    )
    return f'''"""Planned by `llama-jax plan` from the law {first.law.about.name}.

Command:   llama-jax train {path} --data.directory DIR
Hardware:  weights and AdamW's moments take {real.state_bytes / 1e9:.3g} GB over all chips.
Expected:  {real.at.params:,.0f} parameters, {real.at.tokens:,.0f} tokens,
           {real.num_steps:,} updates, {real.flops["6ND"]:.4g} FLOPs (6ND).{epochs}
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


def config() -> RunConfig:
    return RunConfig(
        name={path.stem!r},
        model=ModelConfig(
            num_layers={shape.num_layers},
            embed_dim={shape.embed_dim},
            mlp_dim={shape.mlp_dim},
            num_heads={shape.num_heads},
            num_kv_heads={shape.num_kv_heads},
            head_dim={shape.head_dim},
            vocab_size={shape.vocab_size},
            max_seq_len={shape.max_seq_len},
            rope={shape.rope!r},
            tie_embeddings={shape.tie_embeddings},
        ),
        data=DataConfig(seq_len={config.data.seq_len}),
        train=TrainConfig(num_steps={config.train.num_steps}, batch_size={config.train.batch_size}),
        optimizer=AdamW(peak_lr={config.optimizer.peak_lr!r}),
        schedule={config.schedule!r},
        checkpoint=CheckpointConfig(every_steps={config.checkpoint.every_steps}),
    )
'''
