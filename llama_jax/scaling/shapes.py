"""Real shapes for a number of parameters: dimensions that accelerators multiply well."""

import dataclasses
import math

from llama_jax.config import ModelConfig, PlainRope
from llama_jax.flops import count_params

# Below this the ladder's own 8,192 pieces, or the table would outweigh the model.
_SMALL = 400e6
# One table for embeddings and logits below 1B, and where two would take over a fifth of the
# parameters, as LLaMA-3.2's 1B and 3B have; LLaMA-3's 8B, with 13% in its two, has not.
_TIED_BELOW, _MOST_IN_TABLES = 1e9, 0.2
# LLaMA-2 has eight key/value heads from 34B on, LLaMA-3 at every size.
_GROUPED_FROM, _GROUPS = 30e9, 8
# Widths of LLaMA from 7B on are 128 times their depth or a little less; the ladder's are less.
_ASPECT, _ASPECT_PARAMS = 128.0, 7e9
_MLP_MULTIPLE = 256
_FARTHEST, _DEEPEST = 0.3, 512


def nearest_shape(
    params: float, *, vocab_size: int = 0, seq_len: int = 0, num_kv_heads: int = 0
) -> ModelConfig:
    """The LLaMA decoder whose total of parameters is nearest, among well-proportioned ones.

    Args:
        params: Wanted, vocabulary included.
        vocab_size: Of the tokenizer; 0 is 32,000, or 8,192 below 400M parameters.
        seq_len: Longest context; 0 is 4,096 from 1B on, 2,048 from 400M on, else 1,024.
        num_kv_heads: Key/value heads that query heads share; 0 is as many as heads, and 8 from
            30B on.

    Raises:
        ValueError: If no shape of so many parameters has this vocabulary or these heads.
    """
    vocab_size = vocab_size or (8192 if params < _SMALL else 32_000)
    if not seq_len:
        seq_len = 1024 if params < _SMALL else 2048 if params < _TIED_BELOW else 4096
    if num_kv_heads < 0:
        raise ValueError(f"--kv-heads={num_kv_heads} must be positive, or 0 for the usual ones.")
    asked, num_kv_heads = num_kv_heads, num_kv_heads or (_GROUPS if params >= _GROUPED_FROM else 0)
    best, least = None, math.inf
    for embed_dim in _widths():
        tied = params < _TIED_BELOW or 2 * vocab_size * embed_dim > _MOST_IN_TABLES * params
        if vocab_size * embed_dim > params or not _divides(embed_dim, num_kv_heads):
            continue
        layer = _layer(embed_dim, vocab_size, seq_len, tied, num_kv_heads)
        for num_layers in _depths(params, layer):
            shape = dataclasses.replace(layer, num_layers=num_layers)
            aspect = min(1.0, (params / _ASPECT_PARAMS) ** 0.25) * _ASPECT
            off = abs(math.log(count_params(shape).total / params))
            # Loss is flat around the usual proportions (Kaplan et al. 2020, arXiv:2001.08361,
            # figure 5): a factor of two in width over depth weighs as 3% in parameters.
            off += 0.06 * math.log(embed_dim / num_layers / aspect) ** 2
            if off < least:
                best, least = shape, off
    if best is None:
        if not any(_divides(width, asked) for width in _widths()):
            raise ValueError(f"--kv-heads={asked} divides the heads of no shape; take 8.")
        raise ValueError(
            f"params={params:.3g} is too few: a vocabulary of {vocab_size} takes "
            f"{vocab_size * 64:,} of them at the least width of 64; take a smaller --vocab-size"
            f"{' or fewer --kv-heads' if asked else ''}."
        )
    best = dataclasses.replace(best, num_layers=min(best.num_layers, _DEEPEST))
    total = count_params(best).total
    if abs(math.log(total / params)) > _FARTHEST:
        raise ValueError(
            f"params={params:.3g}: no shape with a vocabulary of {vocab_size} comes near; the "
            f"nearest, {best.num_layers} layers of {best.embed_dim:,}, has {total:.3g}. Shapes "
            f"have 2 to {_DEEPEST} layers, 64 to {_widths()[-1]:,} wide."
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


def _depths(params: float, layer: ModelConfig) -> range:
    """The depths between which a width comes to so many parameters."""
    count = count_params(layer)
    left = params - count.embedding - count.output
    middle = math.floor(left / (count.attention + count.mlp))
    return range(max(2, middle - 1), max(2, middle + 1) + 1)


def _head_dim(embed_dim: int) -> int:
    sizes = (128, 64, 32) if embed_dim >= 2048 else (64, 32)
    return next(size for size in sizes if embed_dim % size == 0)


def _divides(embed_dim: int, num_kv_heads: int) -> bool:
    return not num_kv_heads or embed_dim // _head_dim(embed_dim) % num_kv_heads == 0


def _layer(
    embed_dim: int, vocab_size: int, seq_len: int, tied: bool, num_kv_heads: int
) -> ModelConfig:
    """A decoder of one layer; 0 key/value heads are as many as heads."""
    head_dim = _head_dim(embed_dim)
    num_heads = embed_dim // head_dim
    num_kv_heads = num_kv_heads or num_heads
    # LLaMA's rule: two thirds of 4D, up to the next multiple. What grouped queries save in
    # attention, LLaMA-2's 70B and LLaMA-3's 8B and 70B give to an MLP of 3.5D.
    multiple = _MLP_MULTIPLE if embed_dim >= 1024 else 64
    wide = 3.5 if num_kv_heads < num_heads and embed_dim >= 2048 else 8 / 3
    mlp_dim = multiple * math.ceil(wide * embed_dim / multiple)
    return ModelConfig(
        num_layers=1,
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
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
