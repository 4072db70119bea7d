"""Checkpoints that are complete or absent: saved in the background, verified before use, retained
by a rule."""

from llama_jax.checkpoint.checkpointer import Checkpointer, SaveTiming
from llama_jax.checkpoint.manifest import CheckpointError
from llama_jax.checkpoint.retention import Forecast, forecast, kept_steps

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "Forecast",
    "SaveTiming",
    "forecast",
    "kept_steps",
]
