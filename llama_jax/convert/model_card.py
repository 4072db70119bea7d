"""The README.md of an exported model: what it is, how it was made, how to load it."""

import dataclasses

from llama_jax.config import RunConfig
from llama_jax.flops import count_params, train_flops_per_token


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where in a run an exported model comes from.

    Attributes:
        step: Updates made.
        tokens: Tokens trained on, or 0 where the checkpoint does not say.
        held_out_nats_per_token: Latest held-out loss by source; empty where none was measured.
        libraries: Versions that trained it, by name.
    """

    step: int
    tokens: int = 0
    held_out_nats_per_token: dict[str, float] = dataclasses.field(default_factory=dict)
    libraries: dict[str, str] = dataclasses.field(default_factory=dict)


def model_card(config: RunConfig, origin: Origin, dtype: str, *, has_tokenizer: bool) -> str:
    """Markdown with the front matter that model hubs read; says only what the run recorded."""
    model = config.model
    count = count_params(model)
    tokens = origin.tokens or config.tokens_before(origin.step)
    flops = tokens * train_flops_per_token(model, config.data.seq_len, "full")
    heads = f"{model.num_heads} query, {model.num_kv_heads} key/value, {model.head_dim} wide"
    tied = "tied to the embedding" if model.tie_embeddings else "its own table"
    mixture = ", ".join(f"{name} {weight:g}" for name, weight in config.data.mixture)
    rows = {
        "parameters": f"{count.total:,} ({count.non_embedding:,} without the vocabulary's tables)",
        "layers": f"{model.num_layers}",
        "embedding, MLP": f"{model.embed_dim}, {model.mlp_dim}",
        "heads": heads,
        "vocabulary, output": f"{model.vocab_size:,}, {tied}",
        "context": f"{model.max_seq_len:,} tokens",
        "RoPE": f"{type(model.rope).__name__}, theta {model.rope.theta:g}",
        "weights": dtype,
        "updates": f"{origin.step:,} of {config.train.num_steps:,}",
        "tokens": f"{tokens:,} in rows of {config.data.seq_len:,}, "
        f"{' then '.join(f'{rows * config.data.seq_len:,}' for _, rows in config.train.stages)} "
        "an update",
        "training FLOPs": f"{flops:.3g} (6N a token, and full attention)",
        "optimizer, schedule": f"{type(config.optimizer).__name__}, "
        f"{type(config.schedule).__name__}, peak learning rate {config.optimizer.peak_lr:g}",
        "mixture": mixture or "every source of the dataset, by its tokens",
    }
    rows |= {
        f"held-out loss, {source}": f"{loss:.4f} nats a token"
        for source, loss in origin.held_out_nats_per_token.items()
    }
    rows |= origin.libraries
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- llama_jax
---

# {config.name}

A LLaMA decoder pretrained with `llama_jax`; a base model, tuned to follow no instructions.

| | |
|---|---|
{table}

`training_config.json` is the whole configuration, and itself a recipe for `llama-jax train`.

## Use

{_usage(has_tokenizer)}"""


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
