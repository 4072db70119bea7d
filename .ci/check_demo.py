"""Reads everything that `make demo` leaves, with the libraries that a user would read it with.

python .ci/check_demo.py demo_run
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from safetensors.numpy import load_file

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import RunConfig
from llama_jax.data.tokenizer import load_tokenizer
from llama_jax.flops import count_params
from llama_jax.observe.goodput import NAME, read_goodput
from llama_jax.observe.writers import read_metrics
from llama_jax.recipe import load_recipe


def check_dataset(folder: Path) -> None:
    """TensorFlow Datasets opens both splits, and the tokenizer turns a document into text."""
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    builder = tfds.builder_from_directory(folder / "python")
    for split, expected in (("train", 500), ("heldout", 10)):
        source = builder.as_data_source(split)
        assert len(source) > expected, f"{split} has {len(source)} documents"
        text = tokenizer.decode(np.asarray(source[0]["tokens"]).tolist())
        assert len(text) > 100, f"a document of {split} decodes to {text!r}"
    print(f"dataset: {len(builder.as_data_source('train')):,} documents to train on")


def check_run(folder: Path) -> RunConfig:
    """The loss fell far, held-out documents were scored, and the last step is on disk, whole."""
    config: RunConfig = load_recipe(str(folder / "config.json"))
    metrics = read_metrics(folder / "metrics.jsonl")
    losses = [m["loss_nats_per_token"] for m in metrics if "loss_nats_per_token" in m]
    held_out = [m for m in metrics if "heldout/bits_per_byte" in m]
    chance = math.log(config.model.vocab_size)
    assert abs(losses[0] - chance) < 1.5, f"the first loss {losses[0]:.2f} is not near chance"
    assert losses[-1] < 0.6 * chance, f"the loss fell from {losses[0]:.2f} to {losses[-1]:.2f} only"
    last = held_out[-1]
    assert last["step"] == config.train.num_steps
    assert 0.5 < last["heldout/bits_per_byte"] < 3.0, last
    with Checkpointer(folder / "checkpoints", read_only=True) as checkpointer:
        assert checkpointer.latest_step() == config.train.num_steps
    assert Image.open(folder / "loss.png").size[0] > 800
    bits = last["heldout/bits_per_byte"]
    print(
        f"run: loss {losses[0]:.2f} -> {losses[-1]:.2f} nats/token, held out {bits:.3f} bits/byte"
    )
    print(f"training, in wall time of all starts: {read_goodput(folder / NAME)}")
    return config


def check_export(folder: Path, config: RunConfig) -> None:
    """The exported weights are all there and finite; transformers reads them where it is."""
    exported = json.loads((folder / "config.json").read_text())
    assert exported["architectures"] == ["LlamaForCausalLM"]
    weights = load_file(folder / "model.safetensors")
    assert sum(w.size for w in weights.values()) == count_params(config.model).total
    assert all(np.isfinite(w).all() for w in weights.values())
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as missing:
        print(f"export: weights are whole; transformers was not asked ({missing})")
        return
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    prompt = tokenizer("import numpy as", return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    print(f"export: transformers continues with {tokenizer.decode(ids[0])!r}")


def main(folder: Path) -> None:
    """Checks each part; an assertion that fails is the exit status."""
    check_dataset(folder / "data")
    check_export(folder / "hf", check_run(folder / "model"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
