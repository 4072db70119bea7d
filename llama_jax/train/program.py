"""The compiled parts of a run, compiled while the rest of it gets ready."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import optax
from flax import nnx
from jax.sharding import Mesh

from llama_jax.config import RunConfig
from llama_jax.model import abstract_params, init_params
from llama_jax.sharding import use_layout
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import TrainState, abstract_state, init_state
from llama_jax.train.step import TrainStep, abstract_arguments, make_train_step

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What the devices will run.

    Attributes:
        config: Of the run.
        graphdef: Of the model.
        optimizer: Update rule.
        abstract: Shapes and layout of the state.
        step: The compiled step, once it is compiled; it consumes the state it is given.
    """

    config: RunConfig
    graphdef: nnx.GraphDef[Any]
    optimizer: optax.GradientTransformation
    abstract: TrainState
    step: Future[TrainStep]

    def first_state(self) -> TrainState:
        """The state before the first update, born sharded."""
        _, params = init_params(self.config.model, self.config.compute, self.config.train.seed)
        return init_state(params, self.optimizer)


def begin_compiling(config: RunConfig, mesh: Mesh) -> Program:
    """Starts to compile the step in a thread of its own; the mesh's layout must be current.

    Raises:
        ValueError: If the mesh cannot split a size of the model evenly.
    """
    graphdef, params = abstract_params(config.model, config.compute)
    optimizer = make_optimizer(config.optimizer)
    abstract = abstract_state(params, optimizer)

    def compile_step() -> TrainStep:
        with use_layout(mesh):
            step = make_train_step(graphdef, config, abstract)
            return step.lower(*abstract_arguments(config, mesh, abstract)).compile()

    return Program(
        config=config,
        graphdef=graphdef,
        optimizer=optimizer,
        abstract=abstract,
        step=_in_background(compile_step),
    )


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Runs `work` in a thread that does not keep a run which was refused from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="compile", daemon=True).start()
    return future
