"""One number tells what a run was fed, whoever fed it."""

import numpy as np
import pytest

from llama_jax.config import EvaluateConfig, MeshConfig
from llama_jax.data.dataset import Dataset
from llama_jax.sharding import make_mesh
from llama_jax.train import history, token_order
from llama_jax.train.history import documents_seen
from llama_jax.train.hosts import Hosts
from llama_jax.train.loop import train
from llama_jax.train.token_order import TokenOrder, counted_rows
from tests.train.tiny_run import random_batch, tiny_config

CONFIG = tiny_config(train__batch_ramp=((3, 16),))


def of(mesh, batches, before=0, begin=0):
    order = TokenOrder(CONFIG, mesh, Hosts(), before)
    for done, batch in enumerate(batches, begin):
        order.add(done, batch)
    return order.total()


def fed():
    return [random_batch(seed, rows=8 if seed < 3 else 16) for seed in range(5)]


def test_a_run_that_goes_on_comes_to_the_number_of_one_that_never_stopped(one_device):
    whole = of(one_device, fed())
    assert 0 < whole < 1 << 48
    assert of(one_device, fed()[4:], before=of(one_device, fed()[:4]), begin=4) == whole


@pytest.mark.parametrize("harm", ["a token", "two rows", "two updates", "an update less"])
def test_other_tokens_or_another_order_are_another_number(one_device, harm):
    batches = fed()
    match harm:
        case "a token":
            batches[1].inputs[5, 3] += 1
        case "two rows":
            batches[1].inputs[[2, 6]] = batches[1].inputs[[6, 2]]
        case "two updates":
            batches[:2] = batches[1::-1]
        case "an update less":
            batches.pop()
    assert of(one_device, batches) != of(one_device, fed())


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=8), MeshConfig(fsdp=2, tensor=4)])
def test_of_several_processes_that_hold_a_row_one_counts_it(mesh, monkeypatch):
    """As if each of the eight devices were a process's only one."""
    made = make_mesh(mesh)

    class Device:
        def __init__(self, device):
            self.process_index = device.id

    class Layout:
        def __init__(self, mesh):
            self._layout = token_order_sharding(mesh)

        def devices_indices_map(self, shape):
            places = self._layout.devices_indices_map(shape)
            return {Device(device): place for device, place in places.items()}

    token_order_sharding = token_order.batch_sharding
    monkeypatch.setattr(token_order, "batch_sharding", Layout)
    monkeypatch.setattr("jax.process_count", lambda: 8)
    counted = []
    for process in range(8):
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        counted += counted_rows(made, (16, 16))
    assert sorted(counted) == list(range(16))


def test_a_loader_that_changes_the_order_is_found_though_its_counter_says_the_same(
    corpus, tmp_path, one_device, monkeypatch
):
    config = tiny_config(
        data__directory=str(corpus), train__num_steps=6, evaluate=EvaluateConfig(num_batches=1)
    )
    train(config, tmp_path / "straight")

    def swapped(self, first_sample, really=Dataset.batch):
        batch = really(self, first_sample)
        return type(batch)(*(np.asarray(rows)[::-1] for rows in batch))

    monkeypatch.setattr(Dataset, "batch", swapped)
    train(config, tmp_path / "swapped")
    runs = tmp_path / "straight", tmp_path / "swapped"
    documents = [list(documents_seen(run, 6)) for run in runs]
    assert documents[0] == documents[1]
    assert history.token_order(runs[0], 6) != history.token_order(runs[1], 6)
