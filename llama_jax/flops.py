"""Parameters, FLOPs and bytes of a model, counted once, under named conventions.

A multiply-add is two FLOPs. The backward pass costs twice the forward one, so training is three
times the forward pass; recomputation (remat) is not counted, as in model FLOPs utilisation
(PaLM, arXiv:2204.02311, appendix B).
"""

import dataclasses
from typing import Literal

from llama_jax.config import AdamW, ModelConfig, Optimizer

AttentionFlops = Literal["full", "causal"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParamCount:
    """Parameters by kind; `output` is 0 where the output projection is the embedding table."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    output: int

    @property
    def total(self) -> int:
        """All parameters, as model cards count them."""
        return self.embedding + self.attention + self.mlp + self.norm + self.output

    @property
    def non_embedding(self) -> int:
        """Without the embedding table and the output projection (Kaplan et al. 2020)."""
        return self.attention + self.mlp + self.norm


def count_params(model: ModelConfig) -> ParamCount:
    """Counts the parameters of a LLaMA decoder."""
    D, N, K, H = model.embed_dim, model.num_heads, model.num_kv_heads, model.head_dim
    table = model.vocab_size * D
    return ParamCount(
        embedding=table,
        attention=model.num_layers * 2 * D * H * (N + K),
        mlp=model.num_layers * 3 * D * model.mlp_dim,
        norm=(2 * model.num_layers + 1) * D,
        output=0 if model.tie_embeddings else table,
    )


def state_bytes(count: ParamCount, optimizer: Optimizer) -> float:
    """Bytes of float32 weights and the optimizer's moments, gradients left out.

    The scales of int8 moments, one of 4 bytes to 128 codes, are counted.
    """
    matrices = count.attention + count.mlp
    others = count.total - matrices
    if not isinstance(optimizer, AdamW):
        return 8.0 * matrices + 12.0 * others  # Muon has one moment of a hidden matrix
    match optimizer.state_dtype:
        case "bfloat16":
            return 8.0 * count.total
        case "int8":
            return (6 + 8 / 128) * matrices + 12.0 * others
        case _:
            return 12.0 * count.total


def matmul_params(model: ModelConfig) -> int:
    """Parameters that every token is multiplied by: all but the lookup table and the norms."""
    count = count_params(model)
    return count.attention + count.mlp + model.vocab_size * model.embed_dim


def attention_flops_per_token(model: ModelConfig, seq_len: int, attention: AttentionFlops) -> float:
    """Forward FLOPs of scores and mixing, over one token of a row that is a single document.

    Args:
        model: Shape of the decoder.
        seq_len: Tokens of the row, `T`.
        attention: "full" counts all `T * T` scores of a head, as PaLM and most papers do;
            "causal" counts the `T * (T + 1) / 2` that a causal kernel needs.
    """
    keys_seen = seq_len if attention == "full" else (seq_len + 1) / 2
    return 4.0 * model.num_layers * model.num_heads * model.head_dim * keys_seen


def train_flops_per_token(model: ModelConfig, seq_len: int, attention: AttentionFlops) -> float:
    """Forward and backward model FLOPs of one token.

    Source: PaLM (arXiv:2204.02311), appendix B; there `6N + 12 L H Q T` for "full".
    """
    forward = 2.0 * matmul_params(model) + attention_flops_per_token(model, seq_len, attention)
    return 3.0 * forward


def chinchilla_layer_flops_per_token(
    *,
    num_layers: int,
    embed_dim: int,
    mlp_dim: int,
    num_heads: int,
    head_dim: int,
    seq_len: int,
    num_kv_heads: int = 0,
    mlp_matrices: int = 2,
) -> float:
    """Forward and backward FLOPs of one token, by Chinchilla's own count of Gopher's decoder.

    The softmax is counted and attention in full; embeddings and logits are left out, for without
    them alone the ratios to 6ND of its Table A4 come out. Gopher has as many key/value heads as
    heads (0 here), and two matrices to the MLP, where LLaMA has three.

    Source: Hoffmann et al. 2022 (arXiv:2203.15556), appendix F.
    """
    D, N, H, T = embed_dim, num_heads, head_dim, seq_len
    K = num_kv_heads or num_heads
    projections = 2 * D * (N + 2 * K) * H + 2 * N * H * D
    attention = 2 * T * N * H + 3 * N * T + 2 * T * N * H
    mlp = 2 * mlp_matrices * D * mlp_dim
    return 3.0 * num_layers * (projections + attention + mlp)


# Ways in which papers count the training FLOPs of a run.
CONVENTIONS: dict[str, str] = {
    "6ND": "6 for each parameter and token",
    "non-embedding": "6ND without the vocabulary's tables (Kaplan et al.)",
    "full-attention": "matmuls and attention over whole rows (PaLM)",
    "causal-attention": "the same with the half of attention that is causal",
    "appendix-f": "layers alone, softmax too (Chinchilla's appendix F)",
}


def train_flops_by_convention(model: ModelConfig, seq_len: int) -> dict[str, float]:
    """Forward and backward FLOPs of one token, in each of `CONVENTIONS`."""
    count = count_params(model)
    return {
        "6ND": 6.0 * count.total,
        "non-embedding": 6.0 * count.non_embedding,
        "full-attention": train_flops_per_token(model, seq_len, "full"),
        "causal-attention": train_flops_per_token(model, seq_len, "causal"),
        "appendix-f": chinchilla_layer_flops_per_token(
            num_layers=model.num_layers,
            embed_dim=model.embed_dim,
            mlp_dim=model.mlp_dim,
            num_heads=model.num_heads,
            head_dim=model.head_dim,
            seq_len=seq_len,
            num_kv_heads=model.num_kv_heads,
            mlp_matrices=3,
        ),
    }
