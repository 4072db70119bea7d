"""Folders as Meta releases its models, written by PyTorch: the family's forms at small size.

No test stands here and PyTorch is imported where it is used, so that test modules which skip
themselves without it can share this one.
"""

import json

PARAMS = {"dim": 32, "multiple_of": 16, "n_heads": 4, "n_layers": 2, "norm_eps": 1e-5}
RELEASES = {
    "LLaMA-1": (PARAMS | {"vocab_size": -1}, 1, "float16"),
    "LLaMA-2 70B": (PARAMS | {"n_kv_heads": 2, "ffn_dim_multiplier": 1.3}, 1, "bfloat16"),
    "LLaMA-3": (
        PARAMS | {"n_kv_heads": 2, "rope_theta": 5e5, "vocab_size": 96},
        0,
        "bfloat16",
    ),
    "LLaMA-3.1": (
        PARAMS
        | {
            "n_kv_heads": 4,
            "rope_theta": 5e5,
            "use_scaled_rope": True,
            "rope_scaling_factor": 32.0,
        },
        0,
        "float32",
    ),
}
SLICED = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}


def write_release(folder, params, embedding_axis, dtype, ranks=1):
    """Random weights as Meta's model has them; returns the whole tensors."""
    import torch

    D, N, L = params["dim"], params["n_heads"], params["n_layers"]
    K = params.get("n_kv_heads", N) * D // N
    F = int(params.get("ffn_dim_multiplier", 1) * int(8 * D / 3))
    F = -(-F // params["multiple_of"]) * params["multiple_of"]
    shapes = {"tok_embeddings.weight": (96, D), "norm.weight": (D,), "output.weight": (96, D)}
    for layer in range(L):
        sizes = {"attention.wq": (D, D), "attention.wk": (K, D), "attention.wv": (K, D)}
        sizes |= {"attention.wo": (D, D), "feed_forward.w1": (F, D), "feed_forward.w2": (D, F)}
        sizes |= {"feed_forward.w3": (F, D), "attention_norm": (D,), "ffn_norm": (D,)}
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in sizes.items()}
    kind, generator = getattr(torch, dtype), torch.Generator().manual_seed(0)
    whole = {name: torch.randn(s, generator=generator).to(kind) for name, s in shapes.items()}
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))
    for rank in range(ranks):
        part = slice_of(whole, embedding_axis, rank, ranks)
        torch.save(part, folder / f"consolidated.{rank:02d}.pth")
    return whole


def slice_of(whole, embedding_axis, rank, ranks):
    """What one rank's file holds."""
    part = {}
    for name, value in whole.items():
        kind = name.split(".")[-2]
        axis = embedding_axis if kind == "tok_embeddings" else SLICED.get(kind)
        part[name] = value if axis is None else value.chunk(ranks, dim=axis)[rank].clone()
    return part
