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
from llama_jax.flops import count_params, state_bytes, train_flops_by_convention
from llama_jax.hardware import Pod
from llama_jax.scaling.hyperparameters import Suggestion, choose_rate, suggestions
from llama_jax.scaling.laws import Allocation
from llama_jax.scaling.shapes import nearest_shape
from llama_jax.units import human_count

# What is sure to fit rather than fast: two rows of 4,096 on a device at once, all recomputed.
POD_SETTINGS = PodSettings(tokens=8_192, remat="full")
# A batch that many times the critical one saves hardly any steps for its tokens.
_FAR_ABOVE_CRITICAL = 2.0
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
        suggestions: Batch and learning rate of every law; the batch is the first one's.
        rate: The one whose learning rate is taken.
        flops: Training FLOPs by convention (`flops.CONVENTIONS`).
        state_bytes: Weights and AdamW's moments in float32.
    """

    wanted: Allocation
    shape: ModelConfig
    at: Allocation
    batch_rows: int
    num_steps: int
    suggestions: tuple[Suggestion, ...]
    rate: Suggestion
    flops: dict[str, float]
    state_bytes: float

    @property
    def batch_tokens(self) -> int:
        """Tokens of an update."""
        return self.batch_rows * self.shape.max_seq_len

    @property
    def peak_lr(self) -> float:
        """Learning rate."""
        return self.rate.peak_lr

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of batch and learning rate before a pod is spent on them."""
        told = []
        if self.rate.extrapolates:
            told.append(
                f"The learning rate, {self.peak_lr:.3g}, is {self.rate.law}'s beyond its data, the "
                "lowest that a law gives here; try it on a short run first."
            )
        critical = next(advice for advice in self.suggestions if not advice.peak_lr)
        if (times := self.batch_tokens / critical.batch_tokens) > _FAR_ABOVE_CRITICAL:
            told.append(
                f"The batch is {times:.2g} times the critical one "
                f"({human_count(critical.batch_tokens)} tokens"
                f"{', beyond its data' if critical.extrapolates else ''}): a smaller one would "
                "take fewer tokens to the same loss."
            )
        return tuple(told)


def realise(
    wanted: Allocation,
    pod: Pod,
    *,
    vocab_size: int = 0,
    seq_len: int = 0,
    num_kv_heads: int = 0,
    flops: float = 0.0,
    convention: str = "6ND",
) -> Realised:
    """Finds shape, batch and steps.

    Args:
        wanted: What a law asks for.
        pod: Its devices share a batch evenly.
        vocab_size: Of the tokenizer; 0 for the usual one.
        seq_len: Tokens of a row; 0 for the usual ones.
        num_kv_heads: That query heads share; 0 for the usual ones.
        flops: Budget of training that rounding keeps to: a larger shape gets fewer tokens, a
            smaller one more; 0 where none is given.
        convention: In which that budget is counted.

    Raises:
        ValueError: If the tokens are fewer than one batch, or the parameters than a vocabulary.
    """
    shape = nearest_shape(
        wanted.params, vocab_size=vocab_size, seq_len=seq_len, num_kv_heads=num_kv_heads
    )
    if shape.max_seq_len % 8:
        raise ValueError(f"--seq-len={seq_len} must be a multiple of 8.")
    count = count_params(shape)
    at = Allocation(float(count.total), wanted.tokens)
    advice = suggestions(at, float(count.non_embedding))
    devices = pod.count * pod.chip.devices_per_chip
    rows = _rows(advice[0].batch_tokens / shape.max_seq_len, devices)
    batch_tokens = rows * shape.max_seq_len
    by_token = train_flops_by_convention(shape, shape.max_seq_len)
    tokens = flops / by_token[convention] if flops else wanted.tokens
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
        suggestions=advice,
        rate=choose_rate(advice),
        flops={name: at.tokens * each for name, each in by_token.items()},
        state_bytes=state_bytes(count, AdamW(peak_lr=1e-3)),
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
