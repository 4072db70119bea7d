"""Real shapes for a number of parameters: dimensions that accelerators multiply well."""

import dataclasses
import math

from llama_jax.config import ModelConfig, PlainRope
from llama_jax.flops import count_params

# Below this the ladder's own 8,192 pieces, or the table would outweigh the model.
_SMALL = 400e6
_TIED_BELOW = 1e9
# Widths of LLaMA from 7B on are 128 times their depth or a little less; the ladder's are less.
_ASPECT, _ASPECT_PARAMS = 128.0, 7e9
_MLP_MULTIPLE = 256
_FARTHEST, _DEEPEST = 0.3, 512


def nearest_shape(params: float, *, vocab_size: int = 0, seq_len: int = 0) -> ModelConfig:
    """The LLaMA decoder whose total of parameters is nearest, among well-proportioned ones.

    Args:
        params: Wanted, vocabulary included.
        vocab_size: Of the tokenizer; 0 is 32,000, or 8,192 below 400M parameters.
        seq_len: Longest context; 0 is 4,096 from 1B on, 2,048 from 400M on, else 1,024.

    Raises:
        ValueError: If the vocabulary alone takes more than so many parameters.
    """
    vocab_size = vocab_size or (8192 if params < _SMALL else 32_000)
    if not seq_len:
        seq_len = 1024 if params < _SMALL else 2048 if params < _TIED_BELOW else 4096
    best, least = None, math.inf
    for embed_dim in _widths():
        if vocab_size * embed_dim > params:
            break
        for num_layers in _depths(params, embed_dim, vocab_size):
            shape = _shape(num_layers, embed_dim, vocab_size, seq_len, params < _TIED_BELOW)
            aspect = min(1.0, (params / _ASPECT_PARAMS) ** 0.25) * _ASPECT
            off = abs(math.log(count_params(shape).total / params))
            # Loss is flat around the usual proportions (Kaplan et al. 2020, arXiv:2001.08361,
            # figure 5): a factor of two in width over depth weighs as 3% in parameters.
            off += 0.06 * math.log(embed_dim / num_layers / aspect) ** 2
            if off < least:
                best, least = shape, off
    if best is None:
        raise ValueError(
            f"params={params:.3g} is too few: a vocabulary of {vocab_size} takes "
            f"{vocab_size * 64:,} of them at the least width of 64; take a smaller --vocab-size."
        )
    total = count_params(best).total
    if best.num_layers > _DEEPEST or abs(math.log(total / params)) > _FARTHEST:
        raise ValueError(
            f"params={params:.3g}: no shape comes near; the smallest has 2 layers of 64, "
            f"the largest {_DEEPEST} of {_widths()[-1]:,}."
        )
    return best


def _widths() -> list[int]:
    # Wide models have heads by fours and eights, so that tensor parallelism can split them.
    return [
        *range(64, 512, 64),
        *range(512, 2048, 128),
        *range(2048, 8192, 512),
        *range(8192, 24_577, 1024),
    ]


def _depths(params: float, embed_dim: int, vocab_size: int) -> range:
    left = params - vocab_size * embed_dim
    middle = round(left / (12 * embed_dim**2))
    return range(max(2, middle - 3), max(2, middle + 3) + 1)


def _shape(
    num_layers: int, embed_dim: int, vocab_size: int, seq_len: int, tied: bool
) -> ModelConfig:
    head_dim = next(size for size in (128, 64, 32) if embed_dim % size == 0 and size <= embed_dim)
    if embed_dim < 2048:
        head_dim = min(head_dim, 64)
    # LLaMA's rule: two thirds of 4D, up to the next multiple.
    multiple = _MLP_MULTIPLE if embed_dim >= 1024 else 64
    mlp_dim = multiple * math.ceil(8 * embed_dim / 3 / multiple)
    return ModelConfig(
        num_layers=num_layers,
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_heads=embed_dim // head_dim,
        num_kv_heads=embed_dim // head_dim,
        head_dim=head_dim,
        vocab_size=vocab_size,
        max_seq_len=seq_len,
        rope=PlainRope(theta=10_000.0),
        tie_embeddings=tied,
    )


def describe(shape: ModelConfig) -> dict[str, int | bool]:
    """The dimensions by name."""
    values = dataclasses.asdict(shape)
    names = ("num_layers", "embed_dim", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")
    return {name: values[name] for name in (*names, "vocab_size", "tie_embeddings")}
