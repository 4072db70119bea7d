"""The update: what it computes, that layouts and pieces do not change it, and what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import AdamW, GuardConfig, MeshConfig, Muon
from llama_jax.sharding import make_mesh, use_layout
from tests.train.tiny_run import MODEL, on_mesh, random_batch, start, tiny_config

LR = np.float32(1e-2)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_the_loss_falls_on_a_batch_seen_again(one_device):
    state, step = start(tiny_config())
    batch = on_mesh(random_batch(0), one_device)
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch, LR)
        losses.append(float(metrics["loss_nats_per_token"]))
    assert abs(losses[0] - np.log(MODEL.vocab_size)) < 0.1
    assert losses[-1] < losses[0] - 0.5
    assert int(state.step) == 20


def test_metrics_describe_the_update(one_device):
    config = tiny_config(optimizer=AdamW(peak_lr=1e-2, weight_decay=0.0))
    state, step = start(config)
    batch = random_batch(0)
    new, metrics = step(state, on_mesh(batch, one_device), LR)
    assert metrics["tokens"] == batch.loss_mask.sum()
    assert metrics["learning_rate"] == LR
    norm = np.sqrt(sum(float(jnp.sum(p**2)) for p in jax.tree.leaves(new.params)))
    np.testing.assert_allclose(metrics["param_norm"], norm, rtol=1e-5)
    assert metrics["skipped"] == 0


@pytest.mark.parametrize(
    ("highest_loss", "highest_norm", "skipped"),
    [(np.inf, np.inf, 0), (100.0, 100.0, 0), (1.0, 100.0, 1), (100.0, 1e-6, 1)],
)
def test_an_update_above_a_ceiling_is_not_made(one_device, highest_loss, highest_norm, skipped):
    state, step = start(tiny_config(guards=GuardConfig(on_spike="skip")))
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    ceilings = np.array([highest_loss, highest_norm], np.float32)
    new, metrics = step(state, on_mesh(random_batch(0), one_device), LR, ceilings)
    same = jax.tree.map(np.array_equal, before, (new.params, new.opt_state))
    assert metrics["skipped"] == skipped and int(new.step) == 1
    assert all(jax.tree.leaves(same)) == bool(skipped)


def test_accumulation_gives_the_update_of_the_large_batch(one_device):
    results = []
    for accumulation_steps in (1, 4):
        # With a large eps, the update follows the gradient instead of its sign.
        config = tiny_config(
            train__accumulation_steps=accumulation_steps, optimizer=AdamW(peak_lr=0.1, eps=1.0)
        )
        state, step = start(config)
        results.append(step(state, on_mesh(random_batch(0), one_device), LR))
    (whole, whole_metrics), (summed, summed_metrics) = results
    assert_trees_close(summed_metrics, whole_metrics, rtol=2e-6)
    assert_trees_close(summed.opt_state, whole.opt_state, rtol=1e-4, atol=1e-8)
    assert_trees_close(summed.params, whole.params, atol=1e-7)


LAYOUTS = {
    "1 device": (1, MeshConfig()),
    "2 devices, fsdp": (2, MeshConfig()),
    "8 devices, fsdp": (8, MeshConfig()),
    "replica 2 x fsdp 4": (8, MeshConfig(replica=2)),
    "fsdp 2 x context 2 x tensor 2": (8, MeshConfig(context=2, tensor=2)),
    "2 devices, tensor": (2, MeshConfig(fsdp=1, tensor=2)),
    "2 devices, context": (2, MeshConfig(fsdp=1, context=2)),
    "stage 2 x fsdp 2": (4, MeshConfig(stage=2)),
}


SOME = ["1 device", "fsdp 2 x context 2 x tensor 2"]


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        pytest.param(AdamW, SOME, id="AdamW, some layouts"),
        pytest.param(AdamW, list(LAYOUTS), id="AdamW, every layout", marks=pytest.mark.slow),
        pytest.param(Muon, SOME, id="Muon, some layouts", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_under_every_layout(rule, names):
    # Under AdamW a coordinate of almost no gradient moves by its sign: a large eps tames it.
    config = tiny_config(optimizer=rule(peak_lr=1e-2, eps=1e-3))
    losses = {}
    for name in names:
        num_devices, sizes = LAYOUTS[name]
        mesh = make_mesh(sizes, devices=jax.devices()[:num_devices])
        with use_layout(mesh):
            state, step = start(config)
            losses[name] = []
            for seed in range(4):
                state, metrics = step(state, on_mesh(random_batch(seed), mesh), LR)
                losses[name].append(float(metrics["loss_nats_per_token"]))
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["1 device"], rtol=1e-5, err_msg=name)


def test_the_state_is_born_sharded_and_stays_so(eight_devices):
    state, step = start(tiny_config())

    def layout(s):
        return jax.tree.map(lambda leaf: leaf.sharding.spec, s)

    born = layout(state)
    moments = state.opt_state[1]
    assert jax.tree.leaves(layout(moments.mu)) == jax.tree.leaves(layout(state.params))
    gate = moments.nu["blocks"]["mlp"]["gate"]
    assert gate.addressable_shards[0].data.size == gate.size // 4
    state, _ = step(state, on_mesh(random_batch(0), eight_devices), LR)
    assert layout(state) == born


@pytest.mark.parametrize("rule", [AdamW, Muon])
def test_every_buffer_of_the_state_is_updated_in_place(rule, one_device):
    state, step = start(tiny_config(optimizer=rule(peak_lr=1e-2)))
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", step.as_text(), re.DOTALL)
    assert aliases
    aliased = {int(number) for number in re.findall(r"\((\d+), \{\}", aliases[1])}
    assert aliased == set(range(len(jax.tree.leaves(state))))


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(one_device):
    state, step = start(tiny_config())
    batch = on_mesh(random_batch(0), one_device)
    state, _ = step(state, batch, LR)
    before = jax.tree.map(np.array, state)
    poisoned = batch._replace(loss_mask=batch.loss_mask.at[0, 0].set(jnp.inf))
    state, metrics = step(state, poisoned, LR)
    assert metrics["skipped"] == 1 and not np.isfinite(metrics["loss_nats_per_token"])
    assert int(state.step) == int(before.step) + 1
    jax.tree.map(
        np.testing.assert_array_equal,
        (state.params, state.opt_state),
        (before.params, before.opt_state),
    )
    state, metrics = step(state, batch, LR)
    assert metrics["skipped"] == 0 and np.isfinite(metrics["loss_nats_per_token"])


def test_a_batch_of_padding_alone_is_no_fault(one_device):
    state, step = start(tiny_config())
    empty = random_batch(0)._replace(loss_mask=np.zeros((8, 16), np.float32))
    _, metrics = step(state, on_mesh(empty, one_device), LR)
    assert metrics["loss_nats_per_token"] == 0 and metrics["skipped"] == 0


def test_z_loss_draws_the_normaliser_but_is_not_reported_as_loss(one_device):
    batch = on_mesh(random_batch(0), one_device)
    plain_state, plain_step = start(tiny_config())
    drawn_state, drawn_step = start(tiny_config(train__z_loss=1.0))
    _, plain = plain_step(plain_state, batch, LR)
    _, drawn = drawn_step(drawn_state, batch, LR)
    np.testing.assert_allclose(
        drawn["loss_nats_per_token"], plain["loss_nats_per_token"], rtol=1e-6
    )
    assert drawn["grad_norm"] > 1.1 * plain["grad_norm"]
