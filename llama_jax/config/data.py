"""What a run reads."""

import dataclasses

from llama_jax.config import checks

# Pairs of source and weight.
Mixture = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Token shards, how sources are mixed, and how documents become rows.

    Attributes:
        directory: Folder that `llama-jax data build` wrote: one folder of shards a source, and
            the tokenizer.
        mixture: Pairs of source and weight; weights are normalised. Empty means the
            mixture that the directory was built for, or else every source of it, each weighted by
            its tokens.
        seq_len: Tokens of a row, `T`.
        shuffle_seed: Seed of the order of documents and of the mixture.
    """

    directory: str = ""
    mixture: Mixture = ()
    seq_len: int
    shuffle_seed: int = 0

    def __post_init__(self) -> None:
        checks.positive("data", seq_len=self.seq_len)
        checks.not_negative("data", shuffle_seed=self.shuffle_seed)
        check_mixture("data", self.mixture)


def check_mixture(owner: str, mixture: Mixture) -> None:
    """Raises ValueError if a source is named twice or has a weight that is none."""
    names = [name for name, _ in mixture]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{owner}.mixture names {', '.join(twice)} twice; give each source once.")
    for name, weight in mixture:
        if not 0 < weight < float("inf"):
            raise ValueError(
                f"{owner}.mixture gives {name!r} the weight {weight}; weights must be positive "
                "(leave a source out to drop it)."
            )
