"""What would fit, where a program does not: a forecast, not a compilation."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from llama_jax.aot.machine import Machine
from llama_jax.aot.splits import mesh_flags, split_heads, split_rows
from llama_jax.config import MeshConfig, RunConfig
from llama_jax.flops import count_params, state_bytes
from llama_jax.hardware import Pod, larger_pods
from llama_jax.pods import Slices, mesh_over

ROOM = 0.97  # of the memory: a forecast that is nearer to the limit is none
_GIB = 1 << 30
_WAYS = (2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Demand:
    """What a step asks of one device, of which all but the state grows with the rows."""

    state: float
    per_row: float
    limit: float

    def rows(self, least: float) -> float:
        """Most rows a chip that fit, a multiple of `least`; 0 where not even those do."""
        room = ROOM * self.limit - self.state
        return least * math.floor(room / self.per_row / least) if room > 0 else 0.0


def forecast_fit(
    config: RunConfig,
    machine: Machine,
    needed: float,
    limit: float,
    *,
    option: Literal["--topology", "--pod"] = "--topology",
) -> str:
    """How far a program is over memory, and the nearest changes that should fit, in words.

    Args:
        config: Of the run.
        machine: That its step was compiled for.
        needed: Bytes on one device that the compiler asked for; 0 where it did not say.
        limit: Bytes that there are.
        option: By which the machine was named.
    """
    mesh = MeshConfig(**machine.mesh_shape)
    least = _least_rows(mesh, machine.num_chips)
    rows = config.train.batch_size / config.train.accumulation_steps / machine.num_chips
    if not needed:
        fewer = "fewer rows" if rows > least else "more chips, or fewer rows"
        return f"the compiler found no layout for its memory; use {fewer} a chip."
    told = (
        f"a step needs {needed / _GIB:,.2f} GiB on each device, {limit / _GIB:,.2f} are there: "
        f"{(needed - limit) / _GIB:,.2f} GiB too many."
    )
    state = state_bytes(count_params(config.model), config.optimizer)
    state /= mesh.fsdp * mesh.fsdp_line * mesh.tensor
    # The forecast of a state can be more than all of a small program.
    demand = _Demand(state=state, per_row=max(needed - state, 0.05 * needed) / rows, limit=limit)
    if state >= 0.95 * limit:
        told += f" Parameters and optimizer state alone take {state / _GIB:,.2f}."
    if fewer := demand.rows(least):
        advice = [f"--rows-per-chip {fewer:g}"]
    else:
        advice = [
            *_on_more_chips(mesh, machine, demand, rows, option),
            *_split(config, mesh, machine, demand),
        ]
    told += f" {' or '.join(advice)} should fit (forecast)" if advice else " Use more chips"
    remat = config.compute.remat
    if remat == "full" and needed - _input_bytes(config, machine, rows) < ROOM * limit:
        told += ", or --compute.remat offload_inputs"
    elif remat not in ("full", "offload_inputs") and state < 0.95 * limit:
        told += ", or --compute.remat full" if advice else ", or try --compute.remat full"
    return f"{told}.{_of_a_gpu(machine, needed)}"


def _input_bytes(config: RunConfig, machine: Machine, rows_per_chip: float) -> float:
    """Of all blocks' inputs on a device, in bfloat16."""
    tokens = rows_per_chip * config.data.seq_len / machine.devices_per_chip
    return 2 * tokens * config.model.embed_dim * config.model.num_layers


def _least_rows(mesh: MeshConfig, num_chips: int) -> float:
    """A chip: a batch must have one for each group of devices that splits no row."""
    return mesh.replica * mesh.fsdp * mesh.fsdp_line / num_chips


def _on_more_chips(
    mesh: MeshConfig, machine: Machine, demand: _Demand, asked: float, option: str
) -> Iterator[str]:
    """The next larger slice on which the same mesh, with more devices along `fsdp`, fits."""
    pod = machine.pod
    for larger in larger_pods(pod):
        grown = _grown(mesh, machine, larger)
        if grown is None:
            continue
        state = demand.state * mesh.fsdp * mesh.fsdp_line / (grown.fsdp * grown.fsdp_line)
        least = _least_rows(grown, larger.count * machine.num_slices)
        if rows := dataclasses.replace(demand, state=state).rows(least):
            name = f"{larger.chip.name}:{larger.topology or larger.count}"
            if option == "--pod" and machine.num_slices > 1:
                name += f"*{machine.num_slices}"
            yield f"{option} {name} {mesh_flags(grown)} --rows-per-chip {min(rows, asked):g}"
            return


def _grown(mesh: MeshConfig, machine: Machine, pod: Pod) -> MeshConfig | None:
    if mesh.context * mesh.tensor == 1 and mesh.replica == machine.num_slices:
        return mesh_over(Slices(pod=pod, count=machine.num_slices))
    if pod.count % machine.pod.count:
        return None
    return dataclasses.replace(mesh, fsdp=mesh.fsdp * (pod.count // machine.pod.count))


def _split(config: RunConfig, mesh: MeshConfig, machine: Machine, demand: _Demand) -> Iterator[str]:
    """The same chips with each row over several; parameters are then split over fewer."""
    for ways in _WAYS:
        split = split_rows(config, mesh, ways)
        if split is None:
            continue
        least = _least_rows(split, machine.num_chips)
        if rows := dataclasses.replace(demand, state=demand.state * ways).rows(least):
            yield f"{mesh_flags(split)} --rows-per-chip {rows:g}"
            return
    # Heads and MLP are split, the residual stream is not: half of it all, say.
    for ways in _WAYS:
        split = split_heads(config, mesh, ways)
        if split is None:
            continue
        least = _least_rows(split, machine.num_chips)
        halved = dataclasses.replace(demand, per_row=demand.per_row * (ways + 1) / 2)
        if rows := halved.rows(least):
            yield f"{mesh_flags(split)} --rows-per-chip {rows:g}"
            return


def _of_a_gpu(machine: Machine, needed: float) -> str:
    if machine.pod.sides or needed > 0.9 * machine.pod.chip.hbm_bytes:
        return ""
    return (
        " JAX takes 75% of a GPU's memory; XLA_PYTHON_CLIENT_MEM_FRACTION=0.95, set where the run "
        "is, gives it more."
    )
