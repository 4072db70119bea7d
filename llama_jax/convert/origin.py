"""Where an exported model comes from, as its card and its certificate tell it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from llama_jax.config import RunConfig
from llama_jax.recipe import to_json

LAYOUTS = {
    "from-hf": "a Hugging Face folder",
    "from-meta": "Meta's files",
    "from-llama2c": "a file of llama2.c",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Losses in nats a token, and after which update they were measured.

    Attributes:
        training: Of the batches of a while; None where none was recorded.
        training_step: Update of it.
        held_out: By source; empty where none was measured.
        held_out_step: Update of them.
    """

    training: float | None = None
    training_step: int = 0
    held_out: Mapping[str, float] = dataclasses.field(default_factory=dict)
    held_out_step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where in a run an exported model comes from.

    Attributes:
        step: Updates made.
        tokens: Tokens trained on, or 0 where the checkpoint does not say.
        losses: Latest up to that update.
        libraries: Versions that trained it, by name.
        datasets: SHA-256 of the manifest of each source's shards, of those that are at hand.
        imported: What the run was imported from, as its checkpoints say; empty where it was not.
    """

    step: int
    tokens: int = 0
    losses: Losses = Losses()
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    datasets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    imported: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_trained(self) -> bool:
        """Whether the run made updates of its own."""
        return not self.imported or self.step > self.imported.get("step", self.step)

    @property
    def has_config(self) -> bool:
        """Whether the run's config tells of training: an import's may only hold its place."""
        return self.is_trained or self.imported.get("has_training_config", True)

    def facts(self, config: RunConfig, vocab_size: int) -> dict[str, Any]:
        """What a certificate says: no more than is known.

        Args:
            config: Of the run.
            vocab_size: Rows of the exported vocabulary.
        """
        facts: dict[str, Any] = {
            "step": self.step,
            "libraries": dict(self.libraries),
            "padding_rows_left_out": config.model.vocab_size - vocab_size,
        }
        if self.imported:
            facts["imported"] = dict(self.imported)
        if self.is_trained:
            facts["tokens"] = self.tokens or config.tokens_before(self.step)
            facts["data"] = {
                "directory": config.data.directory,
                "mixture": config.data.mixture,
                "manifests_sha256": dict(self.datasets),
            }
        if self.has_config:
            facts["config"] = json.loads(to_json(config))
        return facts
