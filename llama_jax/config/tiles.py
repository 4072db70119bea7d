"""How much of a row a TPU's attention kernel holds at once."""

import dataclasses

from llama_jax.config import checks

LANES = 128


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KernelTiles:
    """Tokens of the tiles in which splash attention works; rows that are shorter halve them.

    A tile that the diagonal crosses is computed whole, so large tiles compute scores that nobody
    reads; small ones start more often. The fused backward kernel writes the gradient of the
    queries once for each tile of keys, and these are summed outside of it: fewer tiles of keys
    leave less to be summed.

    Attributes:
        queries: Of queries, forward.
        keys: Of keys, forward.
        queries_backward: Of queries, backward.
        keys_backward: Of keys, backward.
        keys_at_once: Of keys within a tile of keys, as many as are multiplied at once.
    """

    queries: int = 1024
    keys: int = 1024
    queries_backward: int = 1024
    keys_backward: int = 1024
    keys_at_once: int = 1024

    def __post_init__(self) -> None:
        for name, size in dataclasses.asdict(self).items():
            checks.positive("compute.tiles", **{name: size})
            if size % LANES:
                raise ValueError(
                    f"compute.tiles.{name}={size} must be a multiple of {LANES}, a TPU's lanes."
                )
