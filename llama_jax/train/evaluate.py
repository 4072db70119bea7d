"""Held-out loss of every source, per token and per byte of text."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.data.held_out import HeldOut
from llama_jax.train.step import make_loss_sums

# While the host reads a loss, the devices have the next batch to work on.
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Held-out loss over whole documents.

    Attributes:
        nats: Summed over all scored tokens.
        tokens: Scored: all of the documents but the first of each.
        text_bytes: UTF-8 bytes of the documents' text.
        documents: Number of them.
    """

    nats: float
    tokens: int
    text_bytes: int
    documents: int

    @property
    def loss_nats_per_token(self) -> float:
        """Mean over tokens; depends on the tokenizer."""
        return self.nats / max(self.tokens, 1)

    @property
    def bits_per_byte(self) -> float:
        """Mean over bytes of text; comparable between tokenizers."""
        return self.nats / math.log(2) / max(self.text_bytes, 1)

    def __str__(self) -> str:
        return (
            f"{self.loss_nats_per_token:.4f} nats/token, {self.bits_per_byte:.4f} bits/byte, "
            f"{self.documents:,} documents"
        )

    def to_json(self) -> dict[str, float]:
        """For machines."""
        return {
            "loss_nats_per_token": self.loss_nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "text_bytes": self.text_bytes,
            "documents": self.documents,
        }


class Evaluator:
    """Scores parameters on held-out documents; the compiled program is kept between calls.

    Args:
        graphdef: Of the model.
        config: Of the run.
        held_out: Documents to score, by source.
        to_devices: Lays this process's rows out over the mesh.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef[Any],
        config: RunConfig,
        held_out: Mapping[str, HeldOut],
        *,
        to_devices: Callable[[Batch], Batch],
    ):
        self._held_out = held_out
        self._to_devices = to_devices
        self._loss_sums = jax.jit(make_loss_sums(graphdef, config.compute))

    @property
    def num_batches(self) -> int:
        """Of all sources."""
        return sum(held_out.num_batches for held_out in self._held_out.values())

    def __call__(
        self, params: Any, on_batch: Callable[[], None] = lambda: None
    ) -> dict[str, Score]:
        """Scores of each source; `on_batch` is called after each batch."""
        return {
            source: self._score(params, held, on_batch) for source, held in self._held_out.items()
        }

    def _score(self, params: Any, held_out: HeldOut, on_batch: Callable[[], None]) -> Score:
        nats, pending = 0.0, collections.deque[Any]()

        def read() -> float:
            on_batch()
            return float(pending.popleft())

        for batch in held_out:
            pending.append(self._loss_sums(params, self._to_devices(batch)).nats)
            if len(pending) > _BATCHES_AHEAD:
                nats += read()
        while pending:
            nats += read()
        return Score(
            nats=nats,  # summed on the host, in float64
            tokens=held_out.scored_tokens,
            text_bytes=held_out.text_bytes,
            documents=held_out.num_documents,
        )


def total(scores: Mapping[str, Score]) -> Score:
    """All sources as one, each by its share of the scored text."""
    return Score(
        nats=sum(score.nats for score in scores.values()),
        tokens=sum(score.tokens for score in scores.values()),
        text_bytes=sum(score.text_bytes for score in scores.values()),
        documents=sum(score.documents for score in scores.values()),
    )


def held_out_metrics(scores: Mapping[str, Score]) -> dict[str, float]:
    """Scores under the names that the metric writers use; empty where nothing was scored."""
    named = {"heldout": total(scores)} if scores else {}
    named |= {f"heldout/{source}": score for source, score in scores.items()}
    metrics = {}
    for name, score in named.items():
        metrics[f"{name}/loss_nats_per_token"] = score.loss_nats_per_token
        metrics[f"{name}/bits_per_byte"] = score.bits_per_byte
    return metrics
