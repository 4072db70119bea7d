"""Which rows a process reads, and where they end up."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from llama_jax.config import MeshConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.feed import abstract_batch, feed, local_rows, make_to_devices
from tests.train.tiny_run import random_batch, tiny_config


def test_every_row_arrives_in_its_place(eight_devices):
    config = tiny_config()
    rows = local_rows(config, eight_devices, 8)
    assert rows == range(8)
    batch = random_batch(0)
    spread = make_to_devices(config, eight_devices, rows, 8)(batch)
    for name, whole, given in zip(batch._fields, spread, batch, strict=True):
        np.testing.assert_array_equal(whole, given, err_msg=name)
        assert whole.addressable_shards[0].data.shape == (4, 8)  # 2 ways, and 2 ways along rows
    expected = abstract_batch(config, eight_devices, 8)
    jax.tree.map(lambda a, b: a.sharding == b.sharding and a.dtype == b.dtype, spread, expected)


@pytest.mark.parametrize(
    ("changes", "mesh", "complaint"),
    [
        ({"train__batch_size": 12}, MeshConfig(), r"batch_size=12 .* multiple of 8"),
        ({"train__accumulation_steps": 2}, MeshConfig(), r"2 pieces .* multiple of 16"),
        ({"train__batch_ramp": ((5, 20),)}, MeshConfig(), r"batch_ramp=20 .* multiple of 8"),
        (
            {"data__seq_len": 12, "compute__loss_chunks": 1},
            MeshConfig(fsdp=1, context=8),
            r"data\.seq_len=12 must be a multiple of mesh\.context=8",
        ),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(changes, mesh, complaint):
    config = dataclasses.replace(tiny_config(**changes), mesh=mesh)
    with use_layout(made := make_mesh(mesh)), pytest.raises(ValueError, match=complaint):
        feed(config, made, None, step=0, first_sample=0)


@pytest.mark.parametrize("step", [0, 2, 3, 5])
def test_batches_that_grow_read_every_sample_once_and_in_order(corpus, eight_devices, step):
    config = tiny_config(
        data__directory=str(corpus), train__num_steps=6, train__batch_ramp=((3, 16), (5, 32))
    )
    dataset = open_dataset(config.data, vocab_size=64, batch_size=8)
    first = config.train.rows_before(step)
    with contextlib.closing(
        feed(config, eight_devices, dataset, step=step, first_sample=first)
    ) as batches:
        found = list(batches)
    assert [len(batch.inputs) for batch in found] == [8, 8, 8, 16, 16, 32][step:]
    whole = dataset.resized(88, range(88)).batch(0)
    for name, field in zip(whole._fields, zip(*found, strict=True), strict=True):
        expected = getattr(whole, name)[first:]
        np.testing.assert_array_equal(np.concatenate(field), expected, err_msg=name)
