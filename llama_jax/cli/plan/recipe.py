"""A plan written as a recipe that `llama-jax train` takes."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

from llama_jax.cli.plan.answer import Answer
from llama_jax.cli.plan.corpus import Corpus
from llama_jax.config.pod import PodSettings
from llama_jax.hardware import Pod
from llama_jax.pods import Slices, lay_over
from llama_jax.recipe import to_json
from llama_jax.scaling.realised import POD_SETTINGS, to_recipe

_NAMES = {"params": "parameters", "flops": "FLOPs", "unique_tokens": "unique tokens"}


def write_recipe(path: Path, answer: Answer, pod: Pod | None, corpus: Corpus | None = None) -> None:
    """Writes a recipe, which must not exist yet.

    Args:
        path: A .py has a table of settings for the pod's chip, a .json is laid over the pod.
        answer: The plan, for its header, and the run.
        pod: That it is meant for, if one is named.
        corpus: That it reads, if one is named.
    """
    real = answer.real
    path.parent.mkdir(parents=True, exist_ok=True)
    data = corpus.config(real.shape.max_seq_len) if corpus else None
    recipe = to_recipe(real, path.stem, data)
    if path.suffix == ".py":
        text = _python(path, answer, pod, corpus)
    else:
        settings = {pod.chip.name: POD_SETTINGS} if pod else {}
        text = to_json(lay_over(recipe, settings, Slices(pod=pod)) if pod else recipe)
    with path.open("x") as file:
        file.write(text)


def _warnings(answer: Answer) -> str:
    """What the header says of numbers that no run of a law's data stands behind."""
    first, lines = answer.plan.first, list(answer.real.remarks)
    if beyond := first.chosen.extrapolates:
        named = ", ".join(_NAMES.get(name, name) for name in beyond)
        lines.insert(0, f"Extrapolated: {named} lie outside the data of the law.")
    if remark := first.chosen.remark:
        lines.append(f"{remark[0].upper()}{remark[1:]}.")
    return "".join(
        "\n" + textwrap.fill(line, 98, initial_indent="Warning:   ", subsequent_indent=" " * 11)
        for line in lines
    )


def _python(path: Path, answer: Answer, pod: Pod | None, corpus: Corpus | None) -> str:
    real, request, first = answer.real, answer.request, answer.plan.first
    config, shape = to_recipe(real, path.stem), real.shape
    epochs = (
        f"\n           {request.unique_tokens:,.0f} unique tokens are read "
        f"{real.at.tokens / request.unique_tokens:.3g} times."
        if request.unique_tokens
        else ""
    )
    notes = epochs + _warnings(answer)
    table = (
        "from llama_jax.config.pod import PodSettings\n\n"
        f'PODS = {{"{pod.chip.name}": {_pod_settings()}}}\n'
        if pod
        else ""
    )
    arguments = [f"--pod {pod.chip.name}:{pod.topology or pod.count}"] if pod else []
    data = f"DataConfig(seq_len={shape.max_seq_len})"
    if corpus:
        data = corpus.as_python(shape.max_seq_len, real.at.tokens, _python_value)
    else:
        arguments.append("--data.directory DIR")
    return f'''"""Planned by `llama-jax plan` from the law {first.law.about.name}.

Command:   llama-jax {" ".join(["train", str(path), *arguments])}
Hardware:  weights and AdamW's moments take {real.state_bytes / 1e9:.3g} GB over all chips.
Expected:  {real.at.params:,.0f} parameters, {real.at.tokens:,.0f} tokens,
           {real.num_steps:,} updates, {real.flops["6ND"]:.4g} FLOPs (6ND).{notes}
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
{table}

def config() -> RunConfig:
    return RunConfig(
        name={_python_value(path.stem)},
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
        data={data},
        train=TrainConfig(num_steps={config.train.num_steps}, batch_size={config.train.batch_size}),
        optimizer=AdamW(peak_lr={config.optimizer.peak_lr!r}),
        schedule={config.schedule!r},
        checkpoint=CheckpointConfig(every_steps={config.checkpoint.every_steps}),
    )
'''


def _python_value(value: Any) -> str:
    """As ruff would write it."""
    return repr(value).replace("'", '"')


def _pod_settings() -> str:
    """What differs from the defaults, whose types a recipe would have to import."""
    plain = PodSettings(tokens=1)
    names = [field.name for field in dataclasses.fields(PodSettings)]
    stated = [(name, getattr(POD_SETTINGS, name), getattr(plain, name)) for name in names]
    changed = [f"{name}={_python_value(value)}" for name, value, usual in stated if value != usual]
    return f"PodSettings({', '.join(changed)})"
