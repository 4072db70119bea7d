"""The compiled parts of a run, compiled while the rest of it gets ready."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from llama_jax.config import RunConfig
from llama_jax.model import abstract_params, init_params
from llama_jax.sharding import use_layout
from llama_jax.train.feed import check_batch_split
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.parameterisation import begin, make_rules
from llama_jax.train.state import TrainState, abstract_state, init_state
from llama_jax.train.step import TrainStep, abstract_arguments, make_train_step

K = TypeVar("K")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What the devices will run.

    Attributes:
        config: Of the run.
        graphdef: Of the model.
        optimizer: Update rule.
        abstract: Shapes and layout of the state.
        steps: The compiled step for each size of a batch, once it is compiled; it consumes the
            state it is given.
    """

    config: RunConfig
    graphdef: nnx.GraphDef[Any]
    optimizer: optax.GradientTransformation
    abstract: TrainState
    steps: dict[int, Future[TrainStep]]

    def step_after(self, step: int) -> TrainStep:
        """What makes the update that follows `step` updates; waits until it is compiled.

        Raises:
            Exception: What the compilation failed with, that of a later batch size included:
                better now than where the batch grows.
        """
        for compiled in self.steps.values():
            if compiled.done():
                compiled.result()
        return self.steps[self.config.train.batch_size_at(step)].result()

    def first_state(self) -> TrainState:
        """The state before the first update, born sharded."""
        _, params = init_params(self.config.model, self.config.compute, self.config.train.seed)
        return init_state(begin(params, make_rules(self.config)), self.optimizer)


def begin_compiling(config: RunConfig, mesh: Mesh, step: int = 0) -> Program:
    """Starts to compile what follows `step` updates in a thread; the mesh's layout is current.

    The step is compiled once for each size of a batch, in the order in which they are needed.

    Raises:
        ValueError: If the mesh cannot split a size of the model evenly.
    """
    graphdef, params = abstract_params(config.model, config.compute)
    optimizer = make_optimizer(config.optimizer, make_rules(config))
    abstract = abstract_state(params, optimizer)

    def compile_step(batch_size: int) -> TrainStep:
        with use_layout(mesh):
            return _lower(graphdef, config, mesh, abstract, batch_size).compile()

    sizes = dict.fromkeys(rows for steps, rows in config.train.stages if step < steps.stop)
    return Program(
        config=config,
        graphdef=graphdef,
        optimizer=optimizer,
        abstract=abstract,
        steps=_in_background(compile_step, list(sizes)),
    )


def lower_step(config: RunConfig, mesh: Mesh, batch_size: int) -> jax.stages.Lowered:
    """The step of a run as XLA gets it; the devices of the mesh need not be here.

    Raises:
        ValueError: If the mesh cannot split a size of the model or the batch evenly.
    """
    with use_layout(mesh):
        check_batch_split(config, batch_size)
        graphdef, params = abstract_params(config.model, config.compute)
        abstract = abstract_state(params, make_optimizer(config.optimizer, make_rules(config)))
        return _lower(graphdef, config, mesh, abstract, batch_size)


def _lower(
    graphdef: nnx.GraphDef[Any],
    config: RunConfig,
    mesh: Mesh,
    abstract: TrainState,
    batch_size: int,
) -> jax.stages.Lowered:
    train_step = make_train_step(graphdef, config, abstract)
    return train_step.lower(*abstract_arguments(config, mesh, abstract, batch_size))


def _in_background(work: Callable[[K], T], keys: Sequence[K]) -> dict[K, Future[T]]:
    """Works on each key in turn, in a thread that keeps no refused run from ending."""
    futures: dict[K, Future[T]] = {key: Future() for key in keys}

    def run() -> None:
        for key, future in futures.items():
            try:
                future.set_result(work(key))
            except BaseException as error:
                future.set_exception(error)

    threading.Thread(target=run, name="compile", daemon=True).start()
    return futures
