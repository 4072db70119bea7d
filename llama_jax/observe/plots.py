"""Pictures of a run, made from its folder alone.

plot_loss(run_dir, Path("loss.png"))
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from llama_jax import recipe
from llama_jax.config import RunConfig
from llama_jax.flops import count_params
from llama_jax.observe.writers import read_metrics
from llama_jax.units import human_count

TRAIN_KEY = "loss_nats_per_token"
HELD_OUT_KEY = "heldout/loss_nats_per_token"
TOKENS_KEY = "tokens_seen"

_INK, _FAINT, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
_TRAIN, _HELD_OUT = "#2563eb", "#ea580c"


def plot_loss(run_dir: Path, out: Path) -> None:
    """Draws training and held-out loss over the tokens of a run.

    Args:
        run_dir: Folder of the run, with `config.json` and `metrics.jsonl`.
        out: Picture to write; its ending decides the format.

    Raises:
        ValueError: If the folder has no config, or no loss has been written yet.
    """
    config_path = run_dir / "config.json"
    if not config_path.is_file():
        raise ValueError(f"run_dir={run_dir} has no config.json; is it the folder of a run?")
    config: RunConfig = recipe.load_recipe(str(config_path))
    records = read_metrics(run_dir / "metrics.jsonl")
    train = _curve(records, TRAIN_KEY)
    if not len(train):
        raise ValueError(f"run_dir={run_dir}: metrics.jsonl has no {TRAIN_KEY!r} yet.")
    figure = _draw(config, train, _curve(records, HELD_OUT_KEY), _curve(records, TOKENS_KEY))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=200, facecolor="white")


def smooth(values: Float[np.ndarray, "P"], half_life: float) -> Float[np.ndarray, "P"]:
    """Mean of the neighbours on both sides, in which one `half_life` points away weighs half.

    Args:
        values: Finite, at points of equal distance.
        half_life: In points, positive.
    """
    decay = 0.5 ** (1.0 / half_life)
    past, past_weight = _decayed_sums(values, decay)
    future, future_weight = (x[::-1] for x in _decayed_sums(values[::-1], decay))
    return (past + future - values) / (past_weight + future_weight - 1.0)  # each point once


def _decayed_sums(
    values: Float[np.ndarray, "P"], decay: float
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    sums, weights = np.empty(len(values)), np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1.0
        sums[i], weights[i] = total, weight
    return sums, weights


def _curve(records: Sequence[dict[str, float]], key: str) -> Float[np.ndarray, "P 2"]:
    """Rows of (step, value), finite values alone."""
    points = [(record["step"], record[key]) for record in records if key in record]
    return np.array([p for p in points if math.isfinite(p[1])], dtype=float).reshape(-1, 2)


def _draw(
    config: RunConfig,
    train: Float[np.ndarray, "P 2"],
    held_out: Float[np.ndarray, "Q 2"],
    tokens: Float[np.ndarray, "R 2"],
) -> Any:
    from matplotlib.figure import Figure  # no pyplot: nothing global, and no display is needed

    def tokens_at(steps: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
        # A run that branched off another one did not consume the same tokens at each step.
        if not len(tokens):
            return np.array([config.tokens_before(int(step)) for step in steps], float)
        return np.interp(steps, *tokens.T)

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps, loss = train.T
    seen = tokens_at(steps)
    axes.plot(seen, loss, color=_TRAIN, alpha=0.22, linewidth=0.8)
    axes.plot(
        seen,
        smooth(loss, half_life=max(0.2, len(loss) / 80)),
        color=_TRAIN,
        linewidth=2,
        label="training",
    )
    if len(held_out):
        at = tokens_at(held_out[:, 0])
        axes.plot(
            at,
            held_out[:, 1],
            color=_HELD_OUT,
            linewidth=1.2,
            marker="o",
            markersize=5.5,
            markeredgecolor="white",
            label="held-out documents",
        )
        axes.annotate(
            f"{held_out[-1, 1]:.2f}",
            (at[-1], held_out[-1, 1]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=_HELD_OUT,
            weight="bold",
        )
    _dress(axes, config, float(steps[-1]), float(seen[-1]))
    return figure


def _dress(axes: Any, config: RunConfig, last_step: float, last_token: float) -> None:
    """Title, axes and grid."""
    size = human_count(count_params(config.model).total)
    tokens = human_count(last_token)
    axes.set_title(
        f"A LLaMA of {size} parameters on {tokens} tokens",
        loc="left",
        color=_INK,
        weight="bold",
        pad=24,
    )
    axes.annotate(
        f"recipe {config.name} · {last_step:,.0f} steps of {_batch_tokens(config)} tokens",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 9),
        textcoords="offset points",
        color=_FAINT,
        fontsize=9.5,
    )
    axes.set_ylabel("loss, nats per token", color=_FAINT)
    axes.set_xlabel("training tokens", color=_FAINT)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: human_count(value))
    axes.tick_params(colors=_FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(
        facecolor="white", framealpha=1, edgecolor="none", labelcolor=_INK, loc="upper right"
    )


def _batch_tokens(config: RunConfig) -> str:
    return " then ".join(f"{rows * config.data.seq_len:,}" for _, rows in config.train.stages)
