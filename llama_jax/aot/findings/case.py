"""What a rule looks at, and what it finds."""

import dataclasses
import math
from collections.abc import Collection
from typing import Literal

from llama_jax.aot.collectives import Collective
from llama_jax.aot.compile import MemoryUse
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program
from llama_jax.aot.step_time import StepTime, collective_seconds
from llama_jax.config import RunConfig
from llama_jax.flops import count_params, state_bytes
from llama_jax.sharding import ShardingRules

Severity = Literal["serious", "costly", "note"]
GIB = 1 << 30
WORTH_TELLING = 0.02  # of the step's time
_BF16_BYTES = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        severity: "serious" makes a run several times slower or larger than it need be, "costly"
            takes some per cent, a "note" is worth knowing.
        what: In one line.
        evidence: The numbers that it was read from.
        fix: What to change.
    """

    severity: Severity
    what: str
    evidence: str
    fix: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A compiled step, and the run and machine that it is of."""

    config: RunConfig
    machine: Machine
    program: Program
    memory: MemoryUse
    step_time: StepTime

    @property
    def params(self) -> int:
        """Of the model."""
        return count_params(self.config.model).total

    @property
    def state_bytes(self) -> float:
        """Of one copy of parameters and optimizer state."""
        return state_bytes(count_params(self.config.model), self.config.optimizer)

    @property
    def data_axes(self) -> set[str]:
        """Mesh axes that split the rows and the parameters too."""
        return mesh_axes("embed") & mesh_axes("batch")

    @property
    def tensor_shards(self) -> int:
        """Devices that split heads, MLP and vocabulary."""
        return self.shards(mesh_axes("mlp"))

    @property
    def parameter_shards(self) -> int:
        """Devices that split a parameter."""
        return self.shards(mesh_axes("embed") | mesh_axes("mlp"))

    @property
    def row_shards(self) -> int:
        """Devices that split the rows of a batch, whole rows each."""
        return self.shards(mesh_axes("batch"))

    @property
    def token_shards(self) -> int:
        """Devices that split one row."""
        return self.shards(mesh_axes("seq"))

    @property
    def rows_at_once(self) -> int:
        """Of a piece of the batch, over all devices."""
        return self.config.train.batch_size // self.config.train.accumulation_steps

    def shards(self, axes: Collection[str]) -> int:
        """Devices along mesh axes."""
        return math.prod(self.machine.mesh_shape.get(axis, 1) for axis in axes)

    @property
    def gradient_bytes(self) -> float:
        """Of one device's whole gradient in bfloat16, before anything is reduced."""
        return _BF16_BYTES * self.params / self.tensor_shards

    @property
    def device_memory(self) -> float:
        """Bytes that a program can have."""
        return self.machine.device_memory

    def seconds(self, collectives: list[Collective]) -> float:
        """Of these, one after another."""
        return sum(collective_seconds(one, self.machine) for one in collectives)

    def share(self, seconds: float) -> str:
        """In words."""
        return f"{seconds / self.step_time.seconds:.0%} of the step"


def mesh_axes(logical: str) -> set[str]:
    """That split a logical axis."""
    entry = getattr(ShardingRules(), logical)
    return {entry} if isinstance(entry, str) else set(entry or ())
