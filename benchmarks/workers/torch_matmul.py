"""Matmuls as PyTorch does them in a training step of transformers; started by `matmul.py`."""

from collections.abc import Callable
from typing import Any

from protocol import keep_to_cores, serve_matmuls


def main() -> None:
    """Serves turns on the number of cores that argv names."""
    cores = keep_to_cores()
    import torch

    torch.set_num_threads(cores)

    def make(case: dict[str, Any], copies: int) -> list[Callable[[], Any]]:
        tokens, into, out = case["shape"]
        form = {
            "forward": lambda x, weight, _: x @ weight.T,
            "of input": lambda _, weight, d_out: d_out @ weight,
            "of weight": lambda x, _, d_out: d_out.T @ x,
        }[case["form"]]
        shapes = ((tokens, into), (out, into), (tokens, out))
        sets = [[torch.ones(shape) for shape in shapes] for _ in range(copies)]
        return [lambda s=s: form(*s) for s in sets]

    serve_matmuls(make)


if __name__ == "__main__":
    main()
