"""Whether the best learning rate of a narrow model is that of wide ones, with muP and without.

Command: python benchmarks/learning_rate_transfer.py --data demo_run/data --out transfer.csv

Every width is trained at every learning rate, on the same batches, with nothing kept but its loss:
the mean over the last tenth of the updates, each of which sees new text. A model of the base's
width is the same in both ways and is trained once. Started again, it goes on.
"""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import tyro
from jax.sharding import Mesh

from llama_jax.config import (
    AdamW,
    ComputeConfig,
    DataConfig,
    Linear,
    ModelConfig,
    MuP,
    RunConfig,
    TrainConfig,
)
from llama_jax.data.batch import Batch
from llama_jax.data.dataset import open_dataset
from llama_jax.scaling.width_pictures import plot_transfer
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.coordinates import resized, train_in_memory
from llama_jax.train.feed import feed
from llama_jax.train.program import begin_compiling

COLUMNS = ("parameterisation", "width", "learning_rate", "loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained."""

    data: str
    """Folder of token shards."""
    out: Path
    """Table of losses; a picture is drawn beside it."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Widths of the residual stream; heads are 16 wide."""
    base_width: int = 128
    """Width at which both ways are the same."""
    num_layers: int = 2
    """Depth of all models."""
    learning_rates: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016)
    """Peaks, for the base."""
    num_steps: int = 200
    """Updates of each run, the first tenth of them a warm-up, then straight down to 0."""
    batch_size: int = 8
    """Rows of 64 tokens."""
    vocab_size: int = 2048
    """Rows of the tables; the tokenizer's or more."""


def main() -> None:
    """Trains what the table lacks, and draws it."""
    options = tyro.cli(Options, description=__doc__)
    rows = _read(options.out)
    known = {(row[0], int(row[1]), float(row[2])) for row in rows}
    for width in options.widths:
        for name in ("standard", "muP"):
            wanted = [lr for lr in options.learning_rates if (name, width, lr) not in known]
            if name == "muP" and width == options.base_width:
                base = [row for row in rows if int(row[1]) == width]
                rows += [("muP", *row[1:]) for row in base if float(row[2]) in wanted]
            elif wanted:
                for row in _sweep(options, name, width, wanted):
                    rows.append(row)
                    _write(options.out, rows)
    losses = {(row[0], int(row[1]), float(row[2])): float(row[3]) for row in rows}
    plot_transfer(losses, options.out.with_suffix(".png"))


def _sweep(options: Options, name: str, width: int, learning_rates: list[float]) -> Iterator[tuple]:
    config = _config(options, name, width)
    with use_layout(mesh := make_mesh(config.mesh)):
        program, batches = begin_compiling(config, mesh), _batches(config, mesh)
        for peak_lr in learning_rates:
            trained = train_in_memory(program, batches, peak_lr=peak_lr)
            losses = np.array([float(loss) for _, loss in trained])
            loss = float(np.mean(losses[-(options.num_steps // 10) :]))
            print(f"{name:>8} width {width:>4} learning rate {peak_lr:<6g} {loss:.4f}", flush=True)
            yield name, width, peak_lr, loss


def _config(options: Options, name: str, width: int) -> RunConfig:
    base = ModelConfig(
        num_layers=options.num_layers,
        embed_dim=32,
        mlp_dim=96,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        vocab_size=options.vocab_size,
        max_seq_len=64,
    )
    mup = MuP(base_embed_dim=options.base_width, base_head_dim=base.head_dim)
    return RunConfig(
        name=f"{name}-{width}",
        model=resized(base, embed_dim=width, num_layers=options.num_layers),
        data=DataConfig(directory=options.data, seq_len=64),
        train=TrainConfig(num_steps=options.num_steps, batch_size=options.batch_size),
        optimizer=AdamW(peak_lr=1.0, eps=1e-8),
        schedule=Linear(warmup_steps=options.num_steps // 10),
        compute=ComputeConfig(dtype="float32", remat="none", loss_chunks=1),
        parameterisation=mup if name == "muP" else None,
    )


def _batches(config: RunConfig, mesh: Mesh) -> list[Batch]:
    dataset = open_dataset(
        config.data, vocab_size=config.model.vocab_size, batch_size=config.train.batch_size
    )
    return list(feed(config, mesh, dataset, step=0, first_sample=0))


def _read(path: Path) -> list[tuple]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [tuple(row[column] for column in COLUMNS) for row in csv.DictReader(file)]


def _write(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows((COLUMNS, *rows))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
