"""What `--optimizer` adds to `convert to-hf` and `from-hf`: AdamW's moments in a checkpoint."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_jax.cli.convert.checkpoint import verify_arrays
from llama_jax.config import AdamW, RunConfig
from llama_jax.train.schedule import make_schedule

if TYPE_CHECKING:
    from llama_jax.checkpoint.layer_reader import SavedArray
    from llama_jax.checkpoint.layers import Layered
    from llama_jax.cli.convert.checkpoint import Checkpoint
    from llama_jax.cli.convert.tensor_copier import Copier
    from llama_jax.convert.forecast import Forecast
    from llama_jax.convert.hugging_face_import import Import
    from llama_jax.convert.moments import Moments
    from llama_jax.convert.moments_import import ImportedMoments

# Adam's place in the chain of update rules, as `checkpoint.layers.fresh_adamw` names it too.
_ADAM = "opt_state.1"
_COUNTERS = ("step", "samples", "first_sample", "tokens")


def open_moments(
    run_dir: Path, config: RunConfig, saved: "Checkpoint", dtype: str | None
) -> "Moments":
    """AdamW's state of a checkpoint whose files are as they were written; read when asked for.

    Args:
        run_dir: Folder of the run.
        config: Of the run.
        saved: The checkpoint.
        dtype: Of the exported weights; None leaves them as they are.

    Raises:
        ValueError: If training could not go on from them as if it had not been stopped.
        CheckpointError: If the checkpoint is damaged.
    """
    rule = _exact_rule(config, saved.dtypes, dtype)
    from llama_jax.checkpoint import Checkpointer
    from llama_jax.checkpoint.layer_reader import saved_arrays
    from llama_jax.convert.moments import MOMENTS, Moments, Place

    def read(moment: str) -> "dict[str, SavedArray]":
        return dict(saved_arrays(saved.place, f"{_ADAM}.{moment}."))

    opened = {moment: read(moment) for moment in MOMENTS.values()}
    _check_arrays(config, saved.step, opened)
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        for moment, arrays in opened.items():
            verify_arrays(checkpointer, saved.step, arrays, f"{_ADAM}.{moment}.")
    (count,) = (array for _, array in saved_arrays(saved.place, f"{_ADAM}.count"))
    rate = make_schedule(config.schedule, peak_lr=rule.peak_lr, num_steps=config.train.num_steps)
    return Moments(
        rule=rule,
        learning_rate=rate(saved.step),
        place=Place(
            updates=int(np.asarray(count)), **{name: saved.meta[name] for name in _COUNTERS}
        ),
        open=read,
    )


def _exact_rule(config: RunConfig, saved: list[str], dtype: str | None) -> AdamW:
    rule = config.optimizer
    if not isinstance(rule, AdamW):
        raise ValueError(
            f"--optimizer: optimizer={type(rule).__name__}; moments are exported of AdamW alone, "
            "which PyTorch has too. Leave --optimizer out."
        )
    if config.parameterisation is not None:
        raise ValueError(
            f"--optimizer: parameterisation={type(config.parameterisation).__name__} gives each "
            "role of a weight a learning rate and an epsilon, which the moments contain. Leave "
            "--optimizer out; the weights are those of any LLaMA."
        )
    if rule.state_dtype == "int8":
        raise ValueError(
            "--optimizer: optimizer.state_dtype='int8'; codes of 8 bits would not come back as "
            "they were. Leave --optimizer out."
        )
    if dtype not in (None, "float32") and [dtype] != saved:
        raise ValueError(
            f"--dtype={dtype}: with --optimizer, weights keep their {' and '.join(saved)}; "
            "training cannot go on from rounded ones. Leave --dtype out."
        )
    return rule


def _check_arrays(config: RunConfig, step: int, opened: "dict[str, dict[str, SavedArray]]") -> None:
    from llama_jax.convert.mapping import our_shapes

    for moment, arrays in opened.items():
        for path, shape in our_shapes(config.model).items():
            found = arrays[path].shape if path in arrays else "absent"
            if found != shape:
                raise ValueError(
                    f"--optimizer: {_ADAM}.{moment}.{path} of checkpoint step={step} has the shape "
                    f"{found}; the run's config says {shape}. Leave --optimizer out."
                )


def with_moments(plan: "Forecast") -> "Forecast":
    """What a conversion takes that copies both moments of each parameter too, in float32."""
    more = 2 * 4 * plan.num_params
    return dataclasses.replace(
        plan,
        bytes_read=plan.bytes_read + more,
        bytes_written=plan.bytes_written + more,
        seconds=plan.seconds * (1 + more / plan.bytes_written),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """What a checkpoint of imported parameters has beside them.

    Attributes:
        counters: Where the run stands.
        arrays: Counts of updates and moments.
        updates: That made the moments.
        moments: Where the tensors of each moment lie, and the arrays that they become by path of
            the parameter, by PyTorch's name of it; empty where all are zero.
    """

    counters: dict[str, int]
    arrays: "list[Layered]"
    updates: int = 0
    moments: "dict[str, tuple[Import, dict[str, Layered]]]" = dataclasses.field(
        default_factory=dict
    )

    def write_counts(self, checkpoint: Path) -> None:
        """Writes the counts of updates where they are not zero."""
        counts = {"step": self.counters["step"], f"{_ADAM}.count": self.updates}
        for array in self.arrays:
            if array.name in counts and not array.is_zero:
                value = np.array(counts[array.name], "<i4")
                (checkpoint / array.file(0)).write_bytes(value.tobytes())


def begin_state(params: "dict[str, Layered]") -> TrainingState:
    """The state before the first update."""
    from llama_jax.checkpoint.layers import fresh_adamw

    return TrainingState(counters=dict.fromkeys(_COUNTERS, 0), arrays=fresh_adamw(params))


def resume_state(
    params: "dict[str, Layered]", moments: "ImportedMoments", config: RunConfig
) -> TrainingState:
    """The state with moments that are imported too.

    Raises:
        ValueError: If the config's run is over before.
    """
    from llama_jax.checkpoint.layers import fresh_adamw
    from llama_jax.convert.moments import MOMENTS

    place = moments.place(config)
    arrays = [dataclasses.replace(array, is_zero=False) for array in fresh_adamw(params)]
    named = {array.name: array for array in arrays}
    return TrainingState(
        counters={name: getattr(place, name) for name in _COUNTERS},
        arrays=arrays,
        updates=place.updates,
        moments={
            theirs: (
                moments.plans[ours],
                {path: named[f"{_ADAM}.{ours}.{path}"] for path in params},
            )
            for theirs, ours in MOMENTS.items()
        },
    )


def copy_moments(
    copier: "Copier", state: TrainingState, certificate: dict[str, Any]
) -> dict[str, Any]:
    """Copies the moments of a state, and returns what a certificate says of them."""
    if not state.moments:
        return {}
    certified = certificate.get("optimizer", {}).get("tensors", {})
    tensors = {
        name: copier.copy(plan, arrays, certified.get(name, {}))
        for name, (plan, arrays) in state.moments.items()
    }
    return {"optimizer": {"updates": state.updates, "tensors": tensors}}
