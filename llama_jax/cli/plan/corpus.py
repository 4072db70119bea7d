"""The text that a plan is for: token shards, how often each source of them would be read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_jax.config import DataConfig
from llama_jax.units import human_count


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSource:
    """One source of a mixture.

    Attributes:
        name: Of the source.
        share: Of the tokens that are trained on, in (0, 1].
        num_tokens: That it has for training, special tokens included.
    """

    name: str
    share: float
    num_tokens: int

    def epochs(self, tokens: float) -> float:
        """How often it is read in a run of so many tokens."""
        return tokens * self.share / self.num_tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A folder that `llama-jax data build` wrote.

    Attributes:
        directory: The folder.
        vocab_size: Of its tokenizer.
        sources: In the mixture that it was built for, or else by their tokens.
    """

    directory: Path
    vocab_size: int
    sources: tuple[CorpusSource, ...]

    @property
    def num_tokens(self) -> int:
        """For training, of all sources."""
        return sum(source.num_tokens for source in self.sources)

    def config(self, seq_len: int) -> DataConfig:
        """As a recipe has it."""
        mixture = tuple((source.name, float(f"{source.share:.4g}")) for source in self.sources)
        return DataConfig(directory=str(self.directory), mixture=mixture, seq_len=seq_len)

    def table(self, tokens: float) -> list[tuple[str, str]]:
        """For each source its name, and what a run of so many tokens reads of it."""
        return [(source.name, _tell(source, tokens)) for source in self.sources]

    def document(self, tokens: float) -> list[dict[str, Any]]:
        """The same for programs."""
        return [
            dataclasses.asdict(source) | {"epochs": source.epochs(tokens)}
            for source in self.sources
        ]

    def as_python(self, seq_len: int, tokens: float, quoted: Callable[[Any], str]) -> str:
        """The expression in a recipe, inside a call at eight spaces."""
        lines = [
            f"({quoted(name)}, {share!r}),  # {source.epochs(tokens):.3g} epochs"
            for source, (name, share) in zip(
                self.sources, self.config(seq_len).mixture, strict=True
            )
        ]
        body = "".join(f"                {line}\n" for line in lines)
        return (
            "DataConfig(\n"
            f"            directory={quoted(str(self.directory))},\n"
            f"            mixture=(\n{body}            ),\n"
            f"            seq_len={seq_len},\n        )"
        )


def _tell(source: CorpusSource, tokens: float) -> str:
    there = human_count(source.num_tokens)
    return f"{source.share:.1%} of the tokens, {source.epochs(tokens):.3g} epochs of {there}"


def read_corpus(directory: Path) -> Corpus:
    """Reads the manifests of a folder of token shards, and no tokens.

    Raises:
        ValueError: If it has none, a shard is missing, or a source of its mixture has no text.
    """
    # NumPy takes longer to import than a plan to make.
    from llama_jax.data.shards import built_mixture, list_sources, read_manifest

    manifests = {name: read_manifest(directory / name) for name in list_sources(directory)}
    tokens = {
        name: manifest.splits["train"].num_tokens if "train" in manifest.splits else 0
        for name, manifest in manifests.items()
    }
    mixture = built_mixture(directory) or tuple(
        (name, float(count)) for name, count in tokens.items() if count
    )
    empty = [name for name, _ in mixture if not tokens.get(name)]
    if empty or not mixture:
        raise ValueError(
            f"--data={directory} has no training tokens of {', '.join(empty) or 'any source'}; "
            "build the data anew, or plan with --unique-tokens."
        )
    total = sum(weight for _, weight in mixture)
    return Corpus(
        directory=directory,
        vocab_size=max(manifest.vocab_size for manifest in manifests.values()),
        sources=tuple(
            CorpusSource(name=name, share=weight / total, num_tokens=tokens[name])
            for name, weight in mixture
        ),
    )
