"""A recipe at a size that any machine trains in seconds, and what tells two of its runs apart."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import (
    CheckpointConfig,
    EvaluateConfig,
    LogConfig,
    MeshConfig,
    RunConfig,
    TrainConfig,
    WarmupStableDecay,
)
from llama_jax.data.shard_writer import SplitWriter, write_manifest
from llama_jax.data.shards import Manifest
from llama_jax.data.tokenizer import SENTENCEPIECE_NAME
from llama_jax.observe.writers import read_metrics
from llama_jax.train.history import token_order

_VOCAB_SIZE = 256
_SEQ_LEN = 32
_SOURCES = 3
_DOCUMENTS = {"train": 600, "heldout": 20}


def reduced(config: RunConfig, data: Path, *, num_steps: int, save_every: int) -> RunConfig:
    """The same recipe with fewer and narrower layers, a short schedule, and data of its own.

    Optimizer, form of the schedule, mixture, tied embeddings, z-loss, remat and dtype stay; a batch
    grows in the middle where the recipe's grows. Kernels become the CPU's.

    Args:
        config: The recipe.
        data: Folder of `write_data`.
        num_steps: Updates of the run.
        save_every: Updates between checkpoints.
    """
    grouped = config.model.num_kv_heads < config.model.num_heads
    model = dataclasses.replace(
        config.model,
        num_layers=2,
        embed_dim=32,
        mlp_dim=64,
        num_heads=4,
        num_kv_heads=2 if grouped else 4,
        head_dim=8,
        vocab_size=_VOCAB_SIZE,
        max_seq_len=_SEQ_LEN,
    )
    pieces = min(config.train.accumulation_steps, 2)
    schedule = dataclasses.replace(config.schedule, warmup_steps=2)
    if isinstance(schedule, WarmupStableDecay):
        schedule = dataclasses.replace(schedule, decay_steps=num_steps // 3)
    return dataclasses.replace(
        config,
        name=f"{config.name}-reduced",
        model=model,
        data=dataclasses.replace(
            config.data,
            directory=str(data),
            mixture=config.data.mixture[:_SOURCES],
            seq_len=_SEQ_LEN,
        ),
        train=TrainConfig(
            num_steps=num_steps,
            batch_size=8 * pieces,
            batch_ramp=((num_steps // 2, 16 * pieces),) if config.train.batch_ramp else (),
            accumulation_steps=pieces,
            seed=config.train.seed,
            z_loss=config.train.z_loss,
        ),
        schedule=schedule,
        compute=dataclasses.replace(config.compute, attention="auto", loss_chunks=2),
        mesh=MeshConfig(),
        checkpoint=CheckpointConfig(every_steps=save_every, keep_last=num_steps),
        evaluate=EvaluateConfig(num_batches=1),
        log=LogConfig(every_steps=1, tensorboard=False),
        stream=None,
    )


def write_data(directory: Path, config: RunConfig) -> None:
    """Writes documents for the sources of a recipe's mixture, drawn from a seed."""
    directory.mkdir(parents=True)
    tokenizer = b"stands for a tokenizer"
    (directory / SENTENCEPIECE_NAME).write_bytes(tokenizer)
    names = [name for name, _ in config.data.mixture[:_SOURCES]] or ["one", "two"]
    rng = np.random.default_rng(0)
    for name in names:
        folder = directory / name
        folder.mkdir()
        splits = {}
        for split, count in _DOCUMENTS.items():
            writer = SplitWriter(folder, name, split, vocab_size=_VOCAB_SIZE, shard_tokens=4000)
            for number in range(count):
                start, length = rng.integers(3, _VOCAB_SIZE), rng.integers(4, 60)
                counted = 3 + (start + np.arange(length)) % (_VOCAB_SIZE - 3)
                tokens = np.array([1, *counted, 2])
                writer.add(f"{split}/{number}", tokens, text_bytes=2 * int(length))
            splits[split] = writer.close()
        manifest = Manifest(
            name=name,
            tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
            vocab_size=_VOCAB_SIZE,
            splits=splits,
        )
        write_manifest(folder, manifest)


def fingerprints(run_dir: Path, step: int) -> dict[str, str]:
    """What tells a run from another: SHA-256 of parameters, of optimizer state and of the losses on
    the way, and which tokens it was fed in which order.
    """
    arrays = _saved_arrays(run_dir, step)
    groups = {
        "parameters": [name for name in arrays if name.startswith("params.")],
        "optimizer state": [name for name in arrays if not name.startswith("params.")],
    }
    hashes = {
        group: _hash(_described(name, arrays[name]) for name in sorted(names))
        for group, names in groups.items()
    }
    return hashes | {
        "losses": _hash(repr(loss).encode() for loss in losses(run_dir).items()),
        "token order": f"{token_order(run_dir, step):012x}",
    }


def losses(run_dir: Path) -> dict[int, float]:
    """Training loss of each update."""
    records = read_metrics(run_dir / "metrics.jsonl")
    return {int(r["step"]): r["loss_nats_per_token"] for r in records if "loss_nats_per_token" in r}


def _saved_arrays(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        manifest = checkpointer.verify(step, deep=True)
        wanted = {name: _abstract(array) for name, array in manifest.arrays.items()}
        arrays, _ = checkpointer.restore(step, wanted, deep=False)
    return {name: np.asarray(array) for name, array in arrays.items()}


def _abstract(described: str) -> jax.ShapeDtypeStruct:
    dtype, _, shape = described.rstrip("]").partition("[")
    return jax.ShapeDtypeStruct(tuple(int(size) for size in shape.split(",") if size), dtype)


def _described(name: str, array: np.ndarray) -> bytes:
    return f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
