"""The shape of a LLaMA decoder."""

import dataclasses

from llama_jax.config import checks


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlainRope:
    """Rotary wavelengths as published (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        theta: Base of the wavelengths, dimensionless.
    """

    theta: float = 10_000.0

    def __post_init__(self) -> None:
        checks.positive("model.rope", theta=self.theta)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LinearRope:
    """Position interpolation: every wavelength stretched (Chen et al. 2023, arXiv:2306.15595).

    Attributes:
        theta: Base of the wavelengths, dimensionless.
        factor: By how much the context is stretched, >= 1.
    """

    theta: float = 10_000.0
    factor: float

    def __post_init__(self) -> None:
        checks.positive("model.rope", theta=self.theta)
        if not self.factor >= 1:
            raise ValueError(f"model.rope.factor={self.factor} must be 1 or more.")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Rope:
    """LLaMA-3.1's stretch of the long wavelengths alone (Meta's reference code, `apply_scaling`).

    Attributes:
        theta: Base of the wavelengths, dimensionless.
        factor: Stretch of wavelengths longer than `original_seq_len / low_freq_factor`.
        low_freq_factor: Where the full stretch begins.
        high_freq_factor: Where the stretch ends; between the two it is interpolated.
        original_seq_len: Context of the pretraining before the stretch, tokens.
    """

    theta: float = 500_000.0
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_seq_len: int = 8192

    def __post_init__(self) -> None:
        checks.positive("model.rope", theta=self.theta, original_seq_len=self.original_seq_len)
        checks.positive("model.rope", low_freq_factor=self.low_freq_factor)
        if not self.factor >= 1:
            raise ValueError(f"model.rope.factor={self.factor} must be 1 or more.")
        if not self.high_freq_factor > self.low_freq_factor:
            raise ValueError(
                f"model.rope.high_freq_factor={self.high_freq_factor} must exceed "
                f"model.rope.low_freq_factor={self.low_freq_factor}: the stretch is interpolated "
                "between the two."
            )


Rope = PlainRope | LinearRope | Llama3Rope


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape of a LLaMA decoder (Touvron et al. 2023, arXiv:2302.13971).

    Attributes:
        num_layers: Decoder blocks, `L`.
        embed_dim: Width of the residual stream, `D`.
        mlp_dim: Hidden width of the SwiGLU block, `F`.
        num_heads: Query heads, `N`.
        num_kv_heads: Key/value heads, `K`; equal to `num_heads` for multi-head attention.
        head_dim: Width of one head, `H`.
        vocab_size: Rows of the embedding table, `V`, padding included.
        max_seq_len: Longest context that the model is made for, tokens.
        rope: Form of the rotary position embedding.
        norm_eps: Added to the mean square in RMSNorm, dimensionless.
        tie_embeddings: Whether the output projection is the embedding table itself.
    """

    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_seq_len: int
    rope: Rope = PlainRope()
    norm_eps: float = 1e-5
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        checks.positive(
            "model",
            num_layers=self.num_layers,
            embed_dim=self.embed_dim,
            mlp_dim=self.mlp_dim,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            max_seq_len=self.max_seq_len,
            norm_eps=self.norm_eps,
        )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_kv_heads={self.num_kv_heads} must divide "
                f"model.num_heads={self.num_heads}: query heads share key/value heads evenly."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim={self.head_dim} must be even: RoPE rotates channels in pairs."
            )
