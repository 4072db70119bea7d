"""What tells the data of a run from others: kept with the run, compared when it goes on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llama_jax.data.shards import Manifest


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SourceIdentity:
    """One source of a mixture.

    Attributes:
        weight: Share of samples that it has, as dealt.
        documents: For training.
        tokens: Of those.
        sha256: Of all that its manifest says.
    """

    weight: float
    documents: int
    tokens: int
    sha256: str

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents of {self.tokens:,} tokens ({_short(self.sha256)}), "
            f"weight {self.weight:.6g}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Two datasets of one identity give the same samples, wherever they lie.

    Attributes:
        tokenizer: SHA-256 of its file.
        sources: By name; none of a stream, which compares its raw files itself.
    """

    tokenizer: str
    sources: dict[str, SourceIdentity]

    def to_json(self) -> dict[str, Any]:
        """As JSON that `from_json` reads."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Identity":
        """Reads what `to_json` gave."""
        sources = {name: SourceIdentity(**source) for name, source in data["sources"].items()}
        return Identity(**{**data, "sources": sources})


def identify(manifests: Mapping[str, Manifest], weights: Mapping[str, float]) -> Identity:
    """Identity of a mixture.

    Args:
        manifests: Of all sources of the dataset, all with the same tokenizer.
        weights: Of the sources of the mixture.
    """
    sources = {
        name: SourceIdentity(
            weight=weight,
            documents=manifests[name].splits["train"].num_documents,
            tokens=manifests[name].splits["train"].num_tokens,
            sha256=manifests[name].sha256,
        )
        for name, weight in weights.items()
    }
    return Identity(
        tokenizer=next(iter(manifests.values())).tokenizer_sha256,
        sources=sources,
    )


def differences(old: Identity, new: Identity) -> list[str]:
    """Lines such as `source 'books': (absent) -> 12 documents of ...`; none where both are one."""
    lines = []
    if old.tokenizer != new.tokenizer:
        lines.append(f"tokenizer: {_short(old.tokenizer)} -> {_short(new.tokenizer)}")
    for name in dict.fromkeys((*old.sources, *new.sources)):
        before, now = old.sources.get(name), new.sources.get(name)
        if before != now:
            lines.append(f"source {name!r}: {before or '(absent)'} -> {now or '(absent)'}")
    # The order decides which samples each of them has.
    if not lines and [*old.sources] != [*new.sources]:
        lines.append(f"order of sources: {', '.join(old.sources)} -> {', '.join(new.sources)}")
    return lines


def _short(sha256: str) -> str:
    return sha256[:12]
