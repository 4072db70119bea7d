"""AdamW's state beside weights that are imported: all of it, or a refusal."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.config import AdamW, RunConfig
from llama_jax.convert.hugging_face_import import Import, check_names
from llama_jax.convert.json_values import read_json
from llama_jax.convert.moments import DTYPE, FACTS, FOLDER, FORMAT, MOMENTS, Place, decays
from llama_jax.convert.safetensors_reader import read_folder
from llama_jax.convert.stored import Stored, pieces

_GROUP = {"lr", "betas", "eps", "weight_decay", "names"}
_LARGEST = (1 << 31) - 1  # what a count of ours holds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImportedMoments:
    """AdamW's state, understood in full; no tensor is read yet.

    Attributes:
        plans: Where the tensors of each moment lie, by optax's name of it.
        updates: That made the moments.
        learning_rate: Of the next update.
        rule: Constants of the rule, by their names in `AdamW`.
        run: Where the run stood that exported what these moments began with, if one did.
    """

    plans: dict[str, Import]
    updates: int
    learning_rate: float
    rule: dict[str, float]
    run: Place | None

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(plan.num_bytes for plan in self.plans.values())

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of every tensor, as `Import.identity` says it of weights."""
        return {
            "updates": self.updates,
            "run": self.run and dataclasses.asdict(self.run),
            "files": [plan.identity()["files"] for plan in self.plans.values()],
        }

    def place(self, config: RunConfig) -> Place:
        """Where the run stands now: updates made elsewhere consumed the rows that were next.

        Raises:
            ValueError: If the config's run is over before.
        """
        if self.run is None:
            return Place(
                step=self.updates, updates=self.updates, samples=0, first_sample=0, tokens=0
            )
        train = config.train
        step = self.run.step + self.updates - self.run.updates
        if step > train.num_steps:
            raise ValueError(
                f"training_config.json has train.num_steps={train.num_steps}; the moments are of "
                f"step {step}. Copy that of the export, with as many steps as the run shall have."
            )
        rows = train.rows_before(step) - train.rows_before(self.run.step)
        tokens = config.tokens_before(step) - config.tokens_before(self.run.step)
        return dataclasses.replace(
            self.run,
            step=step,
            updates=self.updates,
            samples=self.run.samples + rows,
            tokens=self.run.tokens + tokens,
        )

    def continued(self, config: RunConfig) -> RunConfig:
        """The config of a run that goes on with the rule that made the moments.

        Raises:
            ValueError: If the config is of another optimizer, or the rule is none of AdamW's.
        """
        if not isinstance(config.optimizer, AdamW):
            raise ValueError(
                f"training_config.json has optimizer={type(config.optimizer).__name__}; moments "
                "are imported for AdamW alone. Leave --optimizer out."
            )
        if (chosen := config.parameterisation) is not None:
            raise ValueError(
                f"training_config.json has parameterisation={type(chosen).__name__}, whose moments "
                "contain its rules; moments are imported for AdamW without one. Leave --optimizer "
                "out."
            )
        # Moments come in float32; between fewer bits they would be rounded.
        optimizer = dataclasses.replace(config.optimizer, state_dtype=DTYPE, **self.rule)
        return dataclasses.replace(config, optimizer=optimizer)


def plan_moments(weights: Import) -> ImportedMoments:
    """Reads what lies beside imported weights: `optimizer.json` and headers, and no tensor.

    Args:
        weights: That the moments belong to.

    Raises:
        ValueError: If anything in it is missing, unknown, of another shape or dtype, or damaged.
    """
    path = weights.folder / FOLDER / FACTS
    if not path.is_file():
        raise ValueError(
            f"--optimizer: {path} is missing; export with --optimizer, or write it as "
            "docs/optimizer_state.md says. Leave --optimizer out to begin with moments of zero."
        )
    said = read_json(path)
    if unknown := sorted(said.keys() - {"format", "updates", "groups", "clip_norm", "run"}):
        raise ValueError(f"{path}: {unknown[0]} is not handled; see docs/optimizer_state.md.")
    if said.get("format") != FORMAT:
        raise ValueError(f"{path}: format={said.get('format')!r} must be {FORMAT}.")
    updates = _count(path, "updates", said.get("updates"))
    run = None if said.get("run") is None else _place(path, said["run"])
    if run and run.updates > updates:
        raise ValueError(
            f"{path}: updates={updates} must not be below run.updates={run.updates}, after which "
            "they began; `run` is that of the export that training went on from."
        )
    rule, learning_rate = _rule(path, said.get("groups"), weights)
    if said.get("clip_norm") is not None:
        rule["clip_norm"] = _number(path, "clip_norm", said["clip_norm"])
    return ImportedMoments(
        plans={ours: _plan_moment(weights, theirs) for theirs, ours in MOMENTS.items()},
        updates=updates,
        learning_rate=learning_rate,
        rule=rule,
        run=run,
    )


def _plan_moment(weights: Import, moment: str) -> Import:
    folder = weights.folder / FOLDER / moment
    found = read_folder(folder)
    wanted = {tensor.name: tensor for tensor, _ in weights.tensors}
    check_names(folder, weights.model, wanted, found)
    for stored in found.values():
        if stored.dtype != DTYPE:
            raise ValueError(
                f"{folder}: {stored.name} is {stored.dtype}; moments are imported from {DTYPE} "
                "alone: save them with .float(), which changes no value."
            )
    tensors = [(wanted[name], stored) for name, stored in found.items()]
    return dataclasses.replace(
        weights,
        folder=folder,
        tensors=tuple(sorted(tensors, key=lambda pair: (pair[1].path, pair[1].offset))),
        left_out=(),
        files=tuple(sorted({stored.path for stored in found.values()})),
        read=_not_negative if moment == "exp_avg_sq" else pieces,
    )


def _not_negative(stored: Stored) -> Iterator[memoryview]:
    for piece in pieces(stored):
        if np.frombuffer(piece, np.float32).min(initial=0) < 0:
            raise ValueError(
                f"{stored.path}: {stored.name} has a value below zero, which no mean of squares "
                "has; these are not AdamW's second moments."
            )
        yield piece


def _rule(path: Path, groups: Any, weights: Import) -> tuple[dict[str, float], float]:
    """The constants of the rule, and the learning rate, of groups that cover all weights."""
    tensors = {tensor.name: tensor for tensor, _ in weights.tensors}
    constants: dict[str, dict[str, float]] = {}
    for group in groups if isinstance(groups, list) else []:
        found = _constants(path, group)
        for name in group["names"]:
            if name not in tensors or name in constants:
                what = "is in two of them" if name in constants else "is no weight of this model"
                raise ValueError(f"{path}: groups name {name!r}, which {what}.")
            constants[name] = found
    if missing := [name for name in tensors if name not in constants]:
        raise ValueError(f"{path}: no group names {missing[0]} ({len(missing)} in all).")
    rule = next(constants[name] for name, tensor in tensors.items() if decays(tensor))
    for name, found in constants.items():
        wanted = rule if decays(tensors[name]) else rule | {"weight_decay": 0.0}
        for key, value in found.items():
            if value != wanted[key]:
                raise ValueError(
                    f"{path}: {key}={value:g} of {name} must be {wanted[key]:g}: one rule updates "
                    "all weights here, and decays no norm. Change it there to go on with that rule."
                )
    return {key: value for key, value in rule.items() if key != "lr"}, rule["lr"]


def _constants(path: Path, group: Any) -> dict[str, float]:
    if not isinstance(group, dict) or group.keys() != _GROUP:
        raise ValueError(f"{path}: a group must have exactly {', '.join(sorted(_GROUP))}.")
    names, betas = group["names"], group["betas"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: names of a group must be a list of weights.")
    if not isinstance(betas, list) or len(betas) != 2:
        raise ValueError(f"{path}: betas={betas!r} must be two numbers.")
    named = {"lr": group["lr"], "beta1": betas[0], "beta2": betas[1]}
    named |= {key: group[key] for key in ("eps", "weight_decay")}
    return {key: _number(path, key, value) for key, value in named.items()}


def _place(path: Path, run: Any) -> Place:
    wanted = [field.name for field in dataclasses.fields(Place)]
    if not isinstance(run, dict) or sorted(run) != sorted(wanted):
        raise ValueError(f"{path}: run must have exactly {', '.join(wanted)}, as it was exported.")
    counts = {name: _count(path, f"run.{name}", run[name], 1 << 62) for name in wanted}
    return Place(**counts)


def _count(path: Path, name: str, value: Any, largest: int = _LARGEST) -> int:
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"{path}: {name}={value!r} must be a whole number, from 0 to {largest:,}.")
    return value


def _number(path: Path, name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}: {name}={value!r} must be a number that is not negative.")
    return float(value)
