"""A plan made real: a shape, whole batches and steps, and what they change."""

import dataclasses
import math

from llama_jax.config import (
    AdamW,
    CheckpointConfig,
    Cosine,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from llama_jax.config.pod import PodSettings
from llama_jax.flops import count_params, state_bytes, train_flops_per_token
from llama_jax.hardware import Pod
from llama_jax.scaling.hyperparameters import Suggestion, suggestions
from llama_jax.scaling.laws import Allocation
from llama_jax.scaling.shapes import nearest_shape

# What is sure to fit rather than fast: two rows of 4,096 on a device at once, all recomputed.
POD_SETTINGS = PodSettings(tokens=8_192, remat="full")
_WARMUP_STEPS = 2000  # LLaMA's (arXiv:2302.13971, section 2.3), where the run is long enough


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Realised:
    """What would be trained.

    Attributes:
        wanted: What the law asked for.
        shape: Nearest decoder.
        at: Its parameters, and the tokens of whole steps.
        batch_rows: Rows of an update.
        num_steps: Updates.
        peak_lr: Learning rate.
        suggestions: Batch and learning rate of every law; the first is taken.
        flops: Training FLOPs by convention: "6ND", "full attention" and "causal attention".
        state_bytes: Weights and AdamW's moments in float32.
    """

    wanted: Allocation
    shape: ModelConfig
    at: Allocation
    batch_rows: int
    num_steps: int
    peak_lr: float
    suggestions: tuple[Suggestion, ...]
    flops: dict[str, float]
    state_bytes: float

    @property
    def batch_tokens(self) -> int:
        """Tokens of an update."""
        return self.batch_rows * self.shape.max_seq_len


def realise(
    wanted: Allocation,
    pod: Pod,
    *,
    vocab_size: int = 0,
    seq_len: int = 0,
    most_flops: float = math.inf,
) -> Realised:
    """Finds shape, batch and steps.

    Args:
        wanted: What a law asks for.
        pod: Its devices share a batch evenly.
        vocab_size: Of the tokenizer; 0 for the usual one.
        seq_len: Tokens of a row; 0 for the usual ones.
        most_flops: Budget of training (6ND) that rounding keeps to: a larger shape gets fewer
            tokens.

    Raises:
        ValueError: If the tokens are fewer than one batch, or the parameters than a vocabulary.
    """
    shape = nearest_shape(wanted.params, vocab_size=vocab_size, seq_len=seq_len)
    if shape.max_seq_len % 8:
        raise ValueError(f"--seq-len={seq_len} must be a multiple of 8.")
    count = count_params(shape)
    at = Allocation(float(count.total), wanted.tokens)
    advice = suggestions(at, float(count.non_embedding))
    devices = pod.count * pod.chip.devices_per_chip
    rows = _rows(advice[0].batch_tokens / shape.max_seq_len, devices)
    batch_tokens = rows * shape.max_seq_len
    tokens = min(wanted.tokens, most_flops / 6.0 / at.params)
    if tokens < batch_tokens:
        raise ValueError(
            f"{tokens:,.0f} tokens are under one batch of {batch_tokens:,} ({rows} rows of "
            f"{shape.max_seq_len}, at least one on each of {devices} devices); give a larger "
            "budget, fewer chips or a smaller --seq-len."
        )
    num_steps = int(tokens // batch_tokens)
    at = Allocation(at.params, float(num_steps * batch_tokens))
    return Realised(
        wanted=wanted,
        shape=shape,
        at=at,
        batch_rows=rows,
        num_steps=num_steps,
        peak_lr=advice[0].peak_lr,
        suggestions=advice,
        flops={
            "6ND": at.flops,
            "full attention": at.tokens * train_flops_per_token(shape, shape.max_seq_len, "full"),
            "causal attention": at.tokens
            * train_flops_per_token(shape, shape.max_seq_len, "causal"),
        },
        state_bytes=state_bytes(count, AdamW(peak_lr=advice[0].peak_lr)),
    )


def to_recipe(realised: Realised, name: str, data: DataConfig | None = None) -> RunConfig:
    """The run, as `llama-jax train` takes it; without `data` it lacks its folder of shards."""
    return RunConfig(
        name=name,
        model=realised.shape,
        data=data or DataConfig(seq_len=realised.shape.max_seq_len),
        train=TrainConfig(num_steps=realised.num_steps, batch_size=realised.batch_rows),
        # Two digits more than the law's data can tell.
        optimizer=AdamW(peak_lr=float(f"{realised.peak_lr:.4g}")),
        schedule=Cosine(
            warmup_steps=min(_WARMUP_STEPS, realised.num_steps // 20), final_fraction=0.1
        ),
        checkpoint=CheckpointConfig(every_steps=max(1, min(1000, realised.num_steps // 10))),
    )


def _rows(wanted: float, devices: int) -> int:
    # Each chip gets as many rows as the others, and large batches divide by 8 for accumulation.
    unit = math.lcm(devices, 8) if wanted >= 16 * devices else devices
    return max(1, round(wanted / unit)) * unit
