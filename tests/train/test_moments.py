"""Moments in fewer bytes: what rounding leaves of them, and that training hardly notices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.config import AdamW, CheckpointConfig, MeshConfig
from llama_jax.flops import count_params, state_bytes
from llama_jax.model import abstract_params
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.moments import BLOCK, dequantize, keep_in_bfloat16, keep_in_int8, quantize
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.state import abstract_state
from tests.train.tiny_run import (
    MODEL,
    counting_batch,
    on_mesh,
    random_batch,
    start,
    tiny_config,
)

SMALL = ("bfloat16", "int8")
ONE_IS_SLOW = [pytest.param("bfloat16", marks=pytest.mark.slow), "int8"]
LR = np.float32(1e-2)
WIDE = dataclasses.replace(MODEL, embed_dim=32, mlp_dim=2 * BLOCK)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("axis", [-1, -2])
def test_codes_stand_for_their_entries_within_half_a_step(axis):
    x = normal(0, 3, 256, 256) * np.exp(normal(1, 3, 256, 256))
    x[1] = 0
    codes, scales = quantize(x, axis, 127, 4, jnp.int8)
    back = np.asarray(dequantize(codes, scales, axis, 127, 4))
    assert codes.shape == x.shape and scales.size == x.size // BLOCK
    largest = np.repeat(scales, BLOCK, axis)
    step = np.abs(np.abs(x / np.where(largest, largest, 1)) ** 0.25 - np.abs(codes) / 127.0)
    assert step[[0, 2]].max() <= 0.5 / 127 + 1e-6
    np.testing.assert_array_equal(np.sign(back), np.sign(x))
    np.testing.assert_array_equal(back[1], 0)


def test_a_large_entry_coarsens_its_own_block_alone():
    x = normal(2, 4, 2 * BLOCK)
    spiked = x.copy()
    spiked[1, 3] = 1e4
    before, after = (
        dequantize(*quantize(y, -1, 127, 4, jnp.int8), -1, 127, 4) for y in (x, spiked)
    )
    changed = np.array(before != after)
    assert changed[1, :BLOCK].any()
    changed[1, :BLOCK] = False
    assert not changed.any()


@pytest.mark.parametrize("small", [keep_in_bfloat16, lambda rule: keep_in_int8(rule, lambda _: -1)])
def test_updates_stay_close_where_gradients_differ_by_orders_of_magnitude(small):
    size = 1e-3 * np.exp(2 * normal(3, 16, 512))
    adam = optax.scale_by_adam(b1=0.9, b2=0.95, eps=1e-12)

    def last_update(rule):
        def step(state, key):
            # Gradients fade, as in training: a moment that cannot follow would stay too large.
            faded = 0.99 ** state[1] * size * (jax.random.normal(key, size.shape) + 0.3)
            update, inner = rule.update({"up": faded}, state[0])
            return (inner, state[1] + 1), update["up"]

        start = (rule.init({"up": jnp.zeros(size.shape)}), 0.0)
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 200))[1][-1]

    exact, rounded = (
        np.asarray(jax.jit(last_update, static_argnums=0)(r)) for r in (adam, small(adam))
    )
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.97
    np.testing.assert_allclose(np.mean(rounded**2), np.mean(exact**2), rtol=0.03)
    assert np.abs(rounded).max() < 1.5 * np.abs(exact).max()


@pytest.mark.slow
def test_three_hundred_updates_reach_the_loss_of_float32(one_device):
    final = {}
    for state_dtype in ("float32", *SMALL):
        config = tiny_config(model=WIDE, optimizer=AdamW(peak_lr=1e-2, state_dtype=state_dtype))
        state, step = start(config)
        losses = []
        for seed in range(300):
            rate = LR * np.float32(min(1, (seed + 1) / 20))
            state, metrics = step(state, on_mesh(counting_batch(seed), one_device), rate)
            losses.append(metrics["loss_nats_per_token"])
        final[state_dtype] = np.mean(losses[-30:])
    assert final["float32"] < 0.5
    for state_dtype in SMALL:
        np.testing.assert_allclose(final[state_dtype], final["float32"], atol=0.02)


@pytest.mark.parametrize("state_dtype", ONE_IS_SLOW)
def test_a_split_state_is_updated_as_on_one_device(state_dtype):
    config = tiny_config(
        model=WIDE, optimizer=AdamW(peak_lr=1e-2, eps=1e-3, state_dtype=state_dtype)
    )
    losses = []
    for count, sizes in ((1, MeshConfig()), (8, MeshConfig(fsdp=4, tensor=2))):
        mesh = make_mesh(sizes, jax.devices()[:count])
        with use_layout(mesh):
            state, step = start(config)
            for seed in range(4):
                state, metrics = step(state, on_mesh(random_batch(seed), mesh), LR)
        losses.append(float(metrics["loss_nats_per_token"]))
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_int8_moments_lie_where_their_parameters_do(eight_devices):
    _, params = abstract_params(WIDE, tiny_config().compute)
    rule = make_optimizer(AdamW(peak_lr=1e-2, state_dtype="int8"))
    state = abstract_state(params, rule)
    moments = state.opt_state[1].inner_states["int8"].inner_state
    for moment in (moments.mu, moments.nu):
        for part in moment:
            for matrix in ("gate", "down"):
                spec = state.params["blocks"]["mlp"][matrix].sharding.spec
                assert part["blocks"]["mlp"][matrix].sharding.spec == spec
    # One block to a head: an axis of one block cannot be split, and is not.
    assert moments.mu.scales["blocks"]["attention"]["query"].shape[-1] == 1


@pytest.mark.parametrize("state_dtype", ["float32", *SMALL])
def test_the_forecast_counts_the_bytes_that_are_there(state_dtype, one_device):
    model = dataclasses.replace(WIDE, head_dim=BLOCK)
    optimizer = AdamW(peak_lr=1e-2, state_dtype=state_dtype)
    _, params = abstract_params(model, tiny_config().compute)
    state = abstract_state(params, make_optimizer(optimizer))
    arrays = [x for x in jax.tree.leaves((state.params, state.opt_state)) if x.ndim]
    num_bytes = sum(x.size * x.dtype.itemsize for x in arrays)
    assert num_bytes == state_bytes(count_params(model), optimizer)


@pytest.mark.parametrize("state_dtype", ONE_IS_SLOW)
def test_small_moments_come_back_bit_for_bit_on_another_mesh(state_dtype, tmp_path):
    config = tiny_config(model=WIDE, optimizer=AdamW(peak_lr=1e-2, state_dtype=state_dtype))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    with use_layout(mesh), Checkpointer(tmp_path, CheckpointConfig()) as checkpointer:
        state, step = start(config)
        state, _ = step(state, on_mesh(random_batch(0), mesh), LR)
        checkpointer.save(1, state, {"step": 1})
        saved = jax.tree.map(np.asarray, state)
    with (
        use_layout(make_mesh(MeshConfig(fsdp=2), jax.devices()[:2])),
        Checkpointer(tmp_path, CheckpointConfig()) as checkpointer,
    ):
        _, params = abstract_params(WIDE, config.compute)
        abstract = abstract_state(params, make_optimizer(config.optimizer))
        restored, _ = checkpointer.restore(1, abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, saved)


def test_a_moment_too_slow_for_bfloat16_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.beta2=0\.999 must be at most 0\.99 with"):
        AdamW(peak_lr=1e-3, beta2=0.999, state_dtype="bfloat16")
