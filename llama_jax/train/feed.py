"""From this process's rows to a batch that lies over the whole mesh."""

import contextlib
import itertools
from collections.abc import Callable, Generator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.data.dataset import Dataset
from llama_jax.sharding import batch_sharding, check_split, num_shards


def feed(
    config: RunConfig,
    mesh: Mesh,
    dataset: Dataset,
    *,
    step: int,
    first_sample: int,
    passed: Mapping[int, int] = {},
    fed: Callable[[int, Batch], None] = lambda done, batch: None,
) -> Generator[Batch]:
    """Batches of all updates that follow `step`, laid out over the mesh, read ahead by threads.

    Args:
        config: Of the run.
        mesh: All devices.
        dataset: To read from, in any size of batches.
        step: Updates made so far.
        first_sample: Global sample counter after them.
        passed: Rows that are passed over, by the number of updates made before.
        fed: Sees this process's rows of each update, and the number of updates before it, when
            they are handed out.

    Raises:
        ValueError: At once, if the mesh cannot split the batches of a stage.
    """
    rows_of = {size: local_rows(config, mesh, size) for _, size in config.train.stages}

    def batches(sample: int) -> Generator[Batch]:
        for steps, size in config.train.stages:
            left = steps[max(step - steps.start, 0) :]
            to_devices = make_to_devices(config, mesh, rows_of[size], size)
            resized = dataset.resized(size, rows_of[size])
            edges = sorted({left.start, *(after for after in passed if after in left), left.stop})
            for start, end in itertools.pairwise(edges):
                sample += passed.get(start, 0)
                with contextlib.closing(resized.batches(sample)) as local:
                    for done, rows in enumerate(itertools.islice(local, end - start), start):
                        fed(done, rows)
                        yield to_devices(rows)
                sample += (end - start) * size

    return batches(first_sample)


def local_rows(config: RunConfig, mesh: Mesh, batch_size: int) -> range:
    """Rows of each global batch that this process's devices need.

    Raises:
        ValueError: If the mesh cannot split the batch, its pieces or its rows evenly.
    """
    check_batch_split(config, batch_size)
    shape = (batch_size, config.data.seq_len)
    indices = batch_sharding(mesh).addressable_devices_indices_map(shape).values()
    spans = [index[0].indices(shape[0]) for index in indices if index is not None]
    return range(min(start for start, _, _ in spans), max(stop for _, stop, _ in spans))


def check_batch_split(config: RunConfig, batch_size: int) -> None:
    """Refuses a batch that the current layout cannot split evenly.

    Raises:
        ValueError: Naming the batch, its pieces or its rows, and what splits them.
    """
    pieces, shards = config.train.accumulation_steps, num_shards("batch")
    if (batch_size // pieces) % shards:
        raise ValueError(
            f"{config.train.field_of(batch_size)} in train.accumulation_steps={pieces} "
            f"pieces cannot be split over {shards} devices (mesh.replica * mesh.stage * mesh.fsdp "
            f"* mesh.fsdp_line): make it a multiple of {pieces * shards}."
        )
    rows = batch_size // pieces // shards
    if num_shards("layers") > 1 and rows % config.compute.stage_rows:
        raise ValueError(
            f"compute.stage_rows={config.compute.stage_rows} must divide the {rows} rows of "
            f"{config.train.field_of(batch_size)} that each device has."
        )
    check_split("seq", data__seq_len=config.data.seq_len)


def make_to_devices(
    config: RunConfig, mesh: Mesh, rows: range, batch_size: int
) -> Callable[[Batch], Batch]:
    """Builds the function that lays this process's rows out over the mesh, without waiting.

    Args:
        config: Of the run.
        mesh: All devices.
        rows: From `local_rows`.
        batch_size: Rows of the global batch.
    """
    sharding = batch_sharding(mesh)
    shape = (batch_size, config.data.seq_len)

    def spread(local: np.ndarray) -> jax.Array:
        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None, "every device of ours holds a part of the batch"
            # Where the mesh splits rows too, a process holds whole rows and gives parts of them.
            start, stop, _ = index[0].indices(shape[0])
            return local[start - rows.start : stop - rows.start, index[1]]

        return jax.make_array_from_callback(shape, sharding, piece)

    return lambda batch: jax.tree.map(spread, batch)


def abstract_batch(config: RunConfig, mesh: Mesh, batch_size: int) -> Batch:
    """Shapes, dtypes and layout of a global batch."""
    shape = (batch_size, config.data.seq_len)

    def rows(dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    ids = rows(np.int32)
    return Batch(ids, ids, rows(np.float32), ids, ids)  # pyright: ignore[reportArgumentType]
