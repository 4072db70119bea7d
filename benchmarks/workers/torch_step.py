"""One training step of transformers' LLaMA in PyTorch; started by `train_step.py`."""

import json
import sys
import time

import torch
from protocol import serve
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Serves rounds of the step that argv describes as JSON."""
    case = json.loads(sys.argv[1])
    torch.set_num_threads(case["cores"])
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=case["embed_dim"],
        intermediate_size=case["mlp_dim"],
        num_hidden_layers=case["num_layers"],
        num_attention_heads=case["num_heads"],
        num_key_value_heads=case["num_heads"],
        vocab_size=case["vocab_size"],
        max_position_embeddings=case["seq_len"],
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    # Fused is the fastest of PyTorch's forms of AdamW.
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    tokens = torch.randint(0, case["vocab_size"], (case["batch_size"], case["seq_len"]))
    forward = torch.compile(model) if case["compiled"] else model
    bfloat16 = case["dtype"] == "bfloat16"

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    a, b = torch.randn(2, 2048, 2048)

    def matmul() -> float:
        times = []
        for _ in range(8):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return min(times)

    serve(case["name"], step, matmul)


if __name__ == "__main__":
    main()
