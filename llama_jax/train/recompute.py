"""Finds chips that compute wrongly and say nothing: one gradient twice must be the same bits."""

import jax
import numpy as np

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.train.guards import TrainingFailed
from llama_jax.train.program import Program
from llama_jax.train.state import TrainState
from llama_jax.train.step import make_update


class Recompute:
    """Computes loss and norm of the gradient of an update twice more, and compares the bits.

    What a chip computes wrongly each time in the same way is not found. XLA gives the same bits
    on CPUs and TPUs; on GPUs it does with `--xla_gpu_deterministic_ops=true` alone.

    Args:
        config: Of the run.
        program: Of the run.
    """

    def __init__(self, config: RunConfig, program: Program):
        self._every_steps = config.guards.recompute_every_steps
        step = make_update(program.graphdef, config)
        # Of the step's results these alone: XLA leaves the update out, and nothing is donated.
        self._norms = jax.jit(lambda *arguments: _norms(*step(*arguments)))

    def due(self, step: int) -> bool:
        """Whether update `step`, counted from 1, is one of those that are checked."""
        return self._every_steps > 0 and step % self._every_steps == 0

    def check(self, step: int, state: TrainState, batch: Batch, learning_rate: np.float32) -> None:
        """Compares; waits for the devices.

        Args:
            step: Of the update, counted from 1.
            state: Before it.
            batch: That it reads.
            learning_rate: Of it.

        Raises:
            TrainingFailed: If the bits differ.
        """
        first, second = (np.asarray(self._norms(state, batch, learning_rate)) for _ in range(2))
        if first.tobytes() != second.tobytes():
            raise TrainingFailed(
                f"step {step}: the same update computed twice has loss and norm of the gradient "
                f"{first.tolist()} and then {second.tolist()}: a chip, or its memory, computes "
                "wrongly. Find it with the maker's tests before the run goes on, and do not trust "
                f"what it made since the last check: `llama-jax taint RUN --since "
                f"{max(step - 1 - self._every_steps, 0)}`."
            )


def _norms(state: TrainState, metrics: dict[str, jax.Array]) -> jax.Array:
    del state
    return jax.numpy.stack([metrics["loss_nats_per_token"], metrics["grad_norm"]])
