"""The README.md of an exported model: what it is, how it was made, how to load it."""

from pathlib import PurePath

from llama_jax.config import ModelConfig, RunConfig
from llama_jax.convert.origin import LAYOUTS, Losses, Origin
from llama_jax.flops import count_params, train_flops_per_token


def model_card(
    config: RunConfig, model: ModelConfig, origin: Origin, dtype: str, *, has_tokenizer: bool
) -> str:
    """Markdown with the front matter that model hubs read; says only what the run recorded.

    Args:
        config: Of the run.
        model: As it is exported, without rows that pad the vocabulary.
        origin: Of the weights.
        dtype: Of the weights.
        has_tokenizer: Whether a tokenizer is beside it.
    """
    rows = _shape(model) | {"weights": dtype}
    if origin.is_trained:
        rows |= _training(config, origin) | _losses(origin.losses)
    rows |= origin.libraries
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    recipe = (
        "`training_config.json` is the whole configuration, and itself a recipe for `llama-jax "
        "train`.\n\n"
        if origin.has_config
        else ""
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- llama_jax
---

# {config.name}

{_beginning(origin)}

| | |
|---|---|
{table}

{recipe}## Use

{_usage(has_tokenizer)}"""


def _beginning(origin: Origin) -> str:
    if not origin.imported:
        return (
            "A LLaMA decoder pretrained with `llama_jax`; a base model, not tuned to follow "
            "instructions."
        )
    layout = LAYOUTS.get(origin.imported["conversion"], "other files")
    name = PurePath(origin.imported["folder"]).name
    if not origin.is_trained:
        return (
            f"A LLaMA decoder converted from {layout}, `{name}`, with `llama_jax`, which changed "
            "none of its weights. What it was trained on is told where it comes from."
        )
    return f"A LLaMA decoder trained with `llama_jax` from weights of {layout}, `{name}`."


def _shape(model: ModelConfig) -> dict[str, str]:
    count = count_params(model)
    heads = f"{model.num_heads} query, {model.num_kv_heads} key/value, {model.head_dim} wide"
    tied = "tied to the embedding" if model.tie_embeddings else "its own table"
    return {
        "parameters": f"{count.total:,} ({count.non_embedding:,} without the vocabulary's tables)",
        "layers": f"{model.num_layers}",
        "embedding, MLP": f"{model.embed_dim}, {model.mlp_dim}",
        "heads": heads,
        "vocabulary, output": f"{model.vocab_size:,}, {tied}",
        "context": f"{model.max_seq_len:,} tokens",
        "RoPE": f"{type(model.rope).__name__}, theta {model.rope.theta:g}",
    }


def _training(config: RunConfig, origin: Origin) -> dict[str, str]:
    tokens = origin.tokens or config.tokens_before(origin.step)
    before = origin.imported.get("step", 0)
    updates = f"{origin.step:,} of {config.train.num_steps:,}"
    if before:
        updates += f", {before:,} of them before the import"
    # Of updates made elsewhere, tokens are known where the run was ours before.
    ours = bool(origin.imported) and not origin.imported.get("tokens", 0)
    since = " since the import" if ours else ""
    flops = tokens * train_flops_per_token(config.model, config.data.seq_len, "full")
    mixture = ", ".join(f"{name} {weight:g}" for name, weight in config.data.mixture)
    return {
        "updates": updates,
        f"tokens{since}": f"{tokens:,} in rows of {config.data.seq_len:,}, "
        f"{' then '.join(f'{rows * config.data.seq_len:,}' for _, rows in config.train.stages)} "
        "an update",
        f"training FLOPs{since}": f"{flops:.3g} (6N a token, and full attention)",
        "optimizer, schedule": f"{type(config.optimizer).__name__}, "
        f"{type(config.schedule).__name__}, peak learning rate {config.optimizer.peak_lr:g}",
        "mixture": mixture or "every source of the dataset, by its tokens",
    }


def _losses(losses: Losses) -> dict[str, str]:
    rows = {
        f"held-out loss, {source}": f"{loss:.4f} nats a token after update {losses.held_out_step:,}"
        for source, loss in losses.held_out.items()
    }
    if losses.training is not None:
        told = f"{losses.training:.4f} nats a token at update {losses.training_step:,}"
        rows["training loss"] = told
    return rows


def _usage(has_tokenizer: bool) -> str:
    if not has_tokenizer:
        return """```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

The tokenizer was not exported; encode text with the one that the model was trained with.
"""
    return """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
prompt = tokenizer("def main(", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))
```
"""
