"""A run laid over a pod: its mesh, its remat, and the pieces of its batches.

    config = lay_over(config, load_pods("llama2_7b"), parse_slices("v5p:4x4x8*2", "--pod"))

The batch of an update, and with it what is learned, stays the recipe's on every pod.
"""

import dataclasses
import math
from collections.abc import Mapping

from llama_jax.config import MeshConfig, RunConfig
from llama_jax.config.pod import PodSettings
from llama_jax.hardware import Pod, parse_pod

_WHOLE = PodSettings(tokens=1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slices:
    """Pods of one kind, joined by the data-centre network."""

    pod: Pod
    count: int = 1

    @property
    def num_chips(self) -> int:
        """Of all slices."""
        return self.pod.count * self.count

    @property
    def num_devices(self) -> int:
        """JAX's devices of all slices."""
        return self.num_chips * self.pod.chip.devices_per_chip


def parse_slices(text: str, option: str) -> Slices:
    """Reads "v5p:4x4x8", or "v5e:16x16*4" for four slices of it.

    Args:
        text: To be read.
        option: That it was given to, for messages.

    Raises:
        ValueError: If there is no such pod, or the number of slices is none.
    """
    name, star, count = text.partition("*")
    if star and not (count.isdigit() and int(count) > 0):
        raise ValueError(f"{option}={text!r}: {count!r} is no number of slices (v5e:16x16*4).")
    return Slices(pod=parse_pod(name, option), count=int(count or 1))


def lay_over(config: RunConfig, known: Mapping[str, PodSettings], slices: Slices) -> RunConfig:
    """The same run, computed as its recipe's table says for these chips.

    Args:
        config: Of the run.
        known: Settings by name of chip, from `recipe.load_pods`.
        slices: To lay it over.

    Raises:
        ValueError: If the recipe names no settings for the chip, there are too few chips, or the
            batch cannot be divided among them.
    """
    chip = slices.pod.chip.name
    if chip not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(
            f"--pod={chip}: recipe {config.name} has no settings for {chip} ({there}). Find some "
            f"with `llama-jax doctor {config.name} --topology {chip}:... --tune`, and give mesh, "
            "remat and accumulation steps yourself."
        )
    settings = known[chip]
    if slices.pod.count < settings.min_chips:
        raise ValueError(
            f"--pod={chip} with {slices.pod.count} chips a slice: {config.name} needs "
            f"{settings.min_chips}, for the memory of a slice must hold a stage of the model."
        )
    mesh = mesh_over(slices, settings)
    compute = dataclasses.replace(
        config.compute,
        remat=settings.remat,
        gradients=settings.gradients,
        tiles=settings.tiles,
        stage_rows=settings.stage_rows,
    )
    train = dataclasses.replace(
        config.train, accumulation_steps=_pieces(config, settings, slices.num_devices)
    )
    return dataclasses.replace(config, train=train, compute=compute, mesh=mesh)


def mesh_over(slices: Slices, settings: PodSettings = _WHOLE) -> MeshConfig:
    """Parameters are split over a slice: over a plane of its torus, and along the line across.

    Args:
        slices: To be laid over.
        settings: Of the chip; by default each slice has the whole model, split over all of it.

    Raises:
        ValueError: If the slices cannot be divided as the settings say.
    """
    pod = slices.pod
    sides = sorted(pod.sides) if pod.topology else [settings.shards or pod.count]
    *plane, line = sides if len(sides) > 1 else (*sides, 1)
    copies = (
        1 if pod.topology else _divided(pod.count, "chips", shards=settings.shards or pod.count)
    )
    fsdp = math.prod(plane) * pod.chip.devices_per_chip
    return MeshConfig(
        replica=copies * _divided(slices.count, "slices", stage=settings.stage),
        stage=settings.stage,
        fsdp=_divided(fsdp, "devices", tensor=settings.tensor, context=settings.context),
        fsdp_line=line,
        context=settings.context,
        tensor=settings.tensor,
    )


def _divided(number: int, of: str, **by: int) -> int:
    if number % math.prod(by.values()):
        wanted = " * ".join(f"{name}={size}" for name, size in by.items())
        raise ValueError(
            f"--pod: {number} {of} cannot be divided by {wanted} of the recipe's settings; give "
            "another pod, or mesh and remat yourself."
        )
    return number // math.prod(by.values())


def _pieces(config: RunConfig, settings: PodSettings, num_devices: int) -> int:
    splitting_rows = settings.tensor * settings.context
    groups = num_devices // splitting_rows
    sizes = [rows for _, rows in config.train.stages]
    for rows in sizes:
        if rows % groups:
            raise ValueError(
                f"{config.train.field_of(rows)} rows cannot be split over the {groups} groups of "
                f"devices of --pod, {splitting_rows} in each: give a pod whose devices divide it, "
                "or split rows too with mesh.context."
            )
    rows_of_group = [rows // groups for rows in sizes]
    at_once = max(1, settings.tokens * splitting_rows // config.data.seq_len)
    common = math.gcd(*rows_of_group)
    divisors = (pieces for pieces in range(1, common + 1) if common % pieces == 0)
    fitting = (pieces for pieces in divisors if max(rows_of_group) // pieces <= at_once)
    return next(fitting, common)
