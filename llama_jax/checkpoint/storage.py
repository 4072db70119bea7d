"""How arrays are stored; the only file that knows Orbax, which it imports when it is first used."""

import logging
import os
import re
from typing import Any

import jax

_STACK_BYTES = 64 << 20
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


def open_orbax() -> Any:
    """An asynchronous checkpointer that stores arrays as they are, in few files."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(_is_news)
    # Weights hardly compress: zstd saved 8% of the bytes and took 4 times as long.
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=True, use_compression=False)
    return ocp.AsyncCheckpointer(handler)


def _is_news(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax logs of a failed save: it is raised to the caller too."""
    return record.module not in ("async_checkpointer", "future")


def save_args(arrays: dict[str, Any]) -> Any:
    """What Orbax wants to be told for a save."""
    import orbax.checkpoint as ocp

    args = {name: ocp.SaveArgs(shard_axes=_cut_along(leaf)) for name, leaf in arrays.items()}
    return ocp.args.PyTreeSave(arrays, args)


def _cut_along(leaf: Any) -> tuple[int, ...]:
    """Axes along which an array is stored item by item.

    Large stacks of matrices are, so that a reader of one matrix need not hold the whole stack.
    """
    return (0,) if leaf.ndim >= 3 and leaf.nbytes > _STACK_BYTES else ()


def restore_args(wanted: dict[str, Any], partial: bool) -> Any:
    """What Orbax wants to be told to read `wanted`, each array onto its sharding."""
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    args = {
        name: ocp.ArrayRestoreArgs(
            sharding=getattr(leaf, "sharding", None) or here,
            global_shape=leaf.shape,
            dtype=leaf.dtype,
        )
        for name, leaf in wanted.items()
    }
    return ocp.args.PyTreeRestore(item=wanted, restore_args=args, partial_restore=partial)


def check_arrays(
    step: int,
    saved: dict[str, str],
    wanted: dict[str, str],
    *,
    partial: bool,
) -> None:
    """Refuses to restore arrays into a state that has others.

    Half-precision arrays are read as float32 where the state has that, which changes no value.

    Args:
        step: Of the checkpoint.
        saved: Dtype and shape of each array of the checkpoint.
        wanted: The same of the state.
        partial: Whether the state may lack arrays of the checkpoint.

    Raises:
        ValueError: Naming each array that differs.
    """
    lines = [
        f"{name}: {saved.get(name, '(absent)')} -> {wanted.get(name, '(absent)')}"
        for name in saved | wanted
        if saved.get(name) != wanted.get(name)
        and not (partial and name not in wanted)
        and not _is_widened(saved.get(name, ""), wanted.get(name, ""))
    ]
    if lines:
        more = f"\n  ... and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise ValueError(
            f"checkpoint step={step} holds other arrays than this run (checkpoint -> run); use "
            "the config that it was saved with:\n  " + "\n  ".join(lines[:10]) + more
        )


def _is_widened(saved: str, wanted: str) -> bool:
    dtype, bracket, shape = saved.partition("[")
    return dtype in ("bfloat16", "float16") and wanted == f"float32{bracket}{shape}"


def system_reason(error: Exception) -> str:
    """What the system said, out of Orbax's and TensorStore's long messages."""
    text = str(error).strip() or type(error).__name__
    if code := _OS_ERROR.search(text):
        return os.strerror(int(code.group(1)))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text.splitlines()[0].rstrip(".")
