"""Runs of one shape side by side in one program on one device."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.sharding import use_layout
from llama_jax.train.backend import compiler_options
from llama_jax.train.program import Program, begin_compiling
from llama_jax.train.schedule import make_schedule
from llama_jax.train.state import TrainState
from llama_jax.train.step import make_update


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """What one of the runs has for itself; all else, the batches too, they share.

    Attributes:
        peak_lr: Learning rate.
        seed: Of the initial weights.
    """

    peak_lr: float
    seed: int


class Replicas:
    """Trains runs that differ in learning rate and initial weights, with nothing kept on disk.

    Their states are stacked, and the step is that of `make_train_step` mapped over the stack.

    Args:
        config: Of all runs; its batch has one size.
        mesh: Of one device.
    """

    def __init__(self, config: RunConfig, mesh: Mesh):
        self._config, self._mesh = config, mesh
        with use_layout(mesh):
            # At its end, so that the step of a single run is not compiled.
            self._program = begin_compiling(config, mesh, config.train.num_steps)
        self._step = jax.jit(
            jax.vmap(make_update(self._program.graphdef, config), in_axes=(0, None, 0)),
            donate_argnums=0,
            compiler_options=compiler_options(mesh.devices.item()),
        )

    def train(self, replicas: Sequence[Replica], batches: Iterable[Batch]) -> np.ndarray:
        """Makes an update of every run for each batch.

        Returns:
            Losses before each update, in nats per token: one row an update, one column a run.
        """
        train = self._config.train
        rates = [
            make_schedule(self._config.schedule, peak_lr=one.peak_lr, num_steps=train.num_steps)
            for one in replicas
        ]
        losses = []
        with use_layout(self._mesh):
            states = self._first_states([one.seed for one in replicas])
            for done, batch in enumerate(batches):
                now = np.array([rate(done) for rate in rates], np.float32)
                states, metrics = self._step(states, batch, now)
                losses.append(metrics["loss_nats_per_token"])
        return np.array(losses).reshape(-1, len(replicas))

    def _first_states(self, seeds: Sequence[int]) -> TrainState:
        first = {seed: self._of_seed(seed).first_state() for seed in set(seeds)}
        stack: Any = lambda *leaves: jnp.stack(leaves)  # noqa: E731
        return jax.tree.map(stack, *(first[seed] for seed in seeds))

    def _of_seed(self, seed: int) -> Program:
        train = dataclasses.replace(self._config.train, seed=seed)
        return dataclasses.replace(
            self._program, config=dataclasses.replace(self._config, train=train)
        )
