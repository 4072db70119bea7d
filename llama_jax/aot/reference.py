"""What differs between a model and the published one that it resembles.

A long run once trained LLaMA-3's sizes with LLaMA-2's rotary base, and nobody saw it: the loss
looks fine. Sizes say which model is meant; everything else is compared with that one.
"""

import dataclasses

from llama_jax.config import Llama3Rope, ModelConfig, PlainRope
from llama_jax.config.model import Rope
from llama_jax.recipe import differences

_SIZES = (
    "num_layers",
    "embed_dim",
    "mlp_dim",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "vocab_size",
)
_MUST_AGREE = 5  # of the sizes, for a model to count as one of the family
_HARMLESS = ("max_seq_len",)  # a shorter context is a choice


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A model beside the published one that is nearest.

    Attributes:
        name: Of the published model.
        differences: Lines such as `rope.theta: 500000.0 -> 10000.0`, published value first.
        choices: The same for fields in which a run may well differ.
    """

    name: str
    differences: tuple[str, ...]
    choices: tuple[str, ...]


def compare_with_published(model: ModelConfig) -> Comparison | None:
    """The nearest member of the family and what differs; None where nothing is near."""

    def agreement(name: str) -> tuple[int, int]:
        other = PUBLISHED[name]
        same = sum(getattr(model, size) == getattr(other, size) for size in _SIZES)
        return same, -len(differences(other, model))

    name = max(PUBLISHED, key=agreement)
    if agreement(name)[0] < _MUST_AGREE:
        return None
    lines = differences(PUBLISHED[name], model)
    choices = tuple(line for line in lines if line.startswith(_HARMLESS))
    return Comparison(
        name=name,
        differences=tuple(line for line in lines if line not in choices),
        choices=choices,
    )


def _model(
    sizes: tuple[int, int, int, int, int, int],
    context: int,
    rope: Rope,
    *,
    eps: float = 1e-5,
    tied: bool = False,
) -> ModelConfig:
    layers, embed, mlp, heads, kv_heads, vocab = sizes
    return ModelConfig(
        num_layers=layers,
        embed_dim=embed,
        mlp_dim=mlp,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=embed // heads,
        vocab_size=vocab,
        max_seq_len=context,
        rope=rope,
        norm_eps=eps,
        tie_embeddings=tied,
    )


_OLD = PlainRope(theta=10_000.0)
_THREE = PlainRope(theta=500_000.0)
_SCALED = Llama3Rope(theta=500_000.0, factor=8.0)
_SCALED_SMALL = Llama3Rope(theta=500_000.0, factor=32.0)
_LONG = 131_072

# Layers, embed, MLP, heads, key/value heads, vocabulary. Sources: Touvron et al. 2023
# (arXiv:2302.13971, arXiv:2307.09288), Grattafiori et al. 2024 (arXiv:2407.21783) and the model
# cards; LLaMA-2 34B is described and was not released.
PUBLISHED: dict[str, ModelConfig] = {
    "LLaMA-1 7B": _model((32, 4096, 11008, 32, 32, 32000), 2048, _OLD, eps=1e-6),
    "LLaMA-1 13B": _model((40, 5120, 13824, 40, 40, 32000), 2048, _OLD, eps=1e-6),
    "LLaMA-1 33B": _model((60, 6656, 17920, 52, 52, 32000), 2048, _OLD, eps=1e-6),
    "LLaMA-1 65B": _model((80, 8192, 22016, 64, 64, 32000), 2048, _OLD),
    "LLaMA-2 7B": _model((32, 4096, 11008, 32, 32, 32000), 4096, _OLD),
    "LLaMA-2 13B": _model((40, 5120, 13824, 40, 40, 32000), 4096, _OLD),
    "LLaMA-2 34B": _model((48, 8192, 22016, 64, 8, 32000), 4096, _OLD),
    "LLaMA-2 70B": _model((80, 8192, 28672, 64, 8, 32000), 4096, _OLD),
    "LLaMA-3 8B": _model((32, 4096, 14336, 32, 8, 128256), 8192, _THREE),
    "LLaMA-3 70B": _model((80, 8192, 28672, 64, 8, 128256), 8192, _THREE),
    "LLaMA-3.1 8B": _model((32, 4096, 14336, 32, 8, 128256), _LONG, _SCALED),
    "LLaMA-3.1 70B": _model((80, 8192, 28672, 64, 8, 128256), _LONG, _SCALED),
    "LLaMA-3.1 405B": _model((126, 16384, 53248, 128, 8, 128256), _LONG, _SCALED),
    "LLaMA-3.2 1B": _model((16, 2048, 8192, 32, 8, 128256), _LONG, _SCALED_SMALL, tied=True),
    "LLaMA-3.2 3B": _model((28, 3072, 8192, 24, 8, 128256), _LONG, _SCALED_SMALL, tied=True),
}
