"""Faults in what a device holds."""

import itertools
import math
from collections.abc import Iterator

from llama_jax.aot.findings.case import GIB, Case, Finding

_FLOATS = ("bf16", "f32", "f16")
_TIGHT, _ROOMY, _LARGE = 0.95, 0.5, 0.05  # of the memory


def replicated_state(case: Case) -> Iterator[Finding]:
    even = case.state_bytes / case.parameter_shards
    if case.memory.arguments > 1.2 * even + (64 << 20):
        yield Finding(
            severity="serious",
            what="Parameters or optimizer state are held more than once.",
            evidence=f"{case.memory.arguments / GIB:,.2f} GiB of arguments on each device; split "
            f"over {case.parameter_shards} devices they would be {even / GIB:,.2f}",
            fix="look for a parameter without a sharded axis in the mesh's rules",
        )
    devices = math.prod(case.machine.mesh_shape.values())
    if case.parameter_shards < devices and case.memory.arguments > 0.25 * case.device_memory:
        yield Finding(
            severity="note",
            what=f"Each of {devices // case.parameter_shards} groups of devices holds the whole "
            "model.",
            evidence=f"{case.memory.arguments / GIB:,.2f} GiB of state on each device, "
            f"{case.memory.arguments / case.device_memory:.0%} of its memory",
            fix="mesh.fsdp=-1 with smaller other axes leaves more room for rows",
        )


def replicated_activations(case: Case) -> Iterator[Finding]:
    """Activations that are whole on a device along an axis whose devices should share them."""
    for held in case.program.results:
        why = _replicated(case, held.array.dims) if held.array.dtype in _FLOATS else ""
        if why and held.array.bytes > 1.2 * _residual_bytes(case):
            shape = f"{held.array.dtype}[{','.join(map(str, held.array.dims))}]"
            yield Finding(
                severity="serious" if held.array.bytes > _LARGE * case.device_memory else "costly",
                what=f"An activation is whole on each device {why}.",
                evidence=f"{held.name} is {shape}, {held.array.bytes / GIB:,.2f} GiB, of "
                f"{held.where or 'no known origin'}",
                fix="constrain what is computed there to its logical axes (llama_jax/sharding.py)",
            )
            return  # what follows from it is of the same shape


def _replicated(case: Case, dims: tuple[int, ...]) -> str:
    """Along what an activation of this shape is replicated; empty where it is split."""
    model, rows = case.config.model, case.rows_at_once
    row = case.config.data.seq_len
    rows_here, row_here = rows // case.row_shards, row // case.token_shards
    sizes = {model.vocab_size, model.embed_dim, model.mlp_dim, model.num_heads * model.head_dim}

    def has_tokens(rows: int, tokens: int) -> bool:
        """Whether axes of rows and of their tokens are there, side by side or as one."""
        as_one = rows > 1 and rows * tokens in {*dims[:-1]} - sizes
        return as_one or (rows, tokens) in itertools.pairwise(dims)

    if rows_here < rows != model.num_layers and (
        has_tokens(rows, row_here) or has_tokens(rows, row)
    ):
        return f"along the batch, of which it should hold {rows_here} of {rows} rows"
    # Keys and values may be whole along a row, and can look like the residual stream.
    keys = model.num_kv_heads * model.head_dim == model.embed_dim
    wide = model.embed_dim in dims and not (keys and case.config.compute.context == "gather")
    if row_here < row and wide and has_tokens(rows_here, row):
        return f"along the row, of which it should hold {row_here:,} of {row:,} tokens"
    whole = case.tensor_shards > 1 and model.mlp_dim not in (model.embed_dim, model.vocab_size)
    if whole and model.mlp_dim in dims and has_tokens(rows_here, row_here):
        return f"along the MLP, of which it should hold 1 of {case.tensor_shards} parts"
    return ""


def _residual_bytes(case: Case) -> float:
    """Of the residual stream as a device should hold it."""
    tokens = case.rows_at_once * case.config.data.seq_len / case.row_shards / case.token_shards
    return 2.0 * tokens * case.config.model.embed_dim


def memory(case: Case) -> Iterator[Finding]:
    used = case.memory.peak / case.device_memory
    if used > _TIGHT:
        yield Finding(
            severity="note",
            what="Memory is tight: another version of the compiler may not fit it.",
            evidence=f"{case.memory.peak / GIB:,.2f} of {case.device_memory / GIB:,.2f} GiB",
            fix="fewer rows a chip, or a remat policy that saves less",
        )
    elif used < _ROOMY and case.config.compute.remat != "none":
        yield Finding(
            severity="note",
            what="Memory is left that could buy speed.",
            evidence=f"{case.memory.peak / GIB:,.2f} of {case.device_memory / GIB:,.2f} GiB "
            f"under compute.remat={case.config.compute.remat}",
            fix="a remat policy that saves more, or more rows a chip; --tune tries them",
        )
