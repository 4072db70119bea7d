"""Every throughput figure names its convention and its peak."""

import types

import jax
import jax.numpy as jnp
import pytest

from llama_jax import recipe
from llama_jax.flops import train_flops_per_token
from llama_jax.observe.throughput import (
    Peak,
    ThroughputMeter,
    count_chips,
    find_peak,
    measure_matmul,
)

CONFIG = recipe.load_recipe("demo")
V5P = Peak(flops_per_second=459e12, dtype="bf16", source="v5p")


def device(kind, platform="tpu", process_index=0):
    return types.SimpleNamespace(device_kind=kind, platform=platform, process_index=process_index)


def test_a_line_names_both_conventions_and_the_peak():
    meter = ThroughputMeter(CONFIG.model, 256, V5P, num_chips=4)
    causal = train_flops_per_token(CONFIG.model, 256, "causal")
    throughput = meter(tokens=4 * 0.4 * 459e12 / causal * 2.0, seconds=2.0)
    assert throughput.mfu_causal == pytest.approx(0.4)
    full = train_flops_per_token(CONFIG.model, 256, "full")
    assert throughput.mfu_full == pytest.approx(0.4 * full / causal)
    line = str(throughput)
    assert line.startswith(f"{0.4 * 459e12 / causal:,.0f} tok/s/chip · MFU 40.0% (causal) 4")
    assert line.endswith("% (full) of 459 TFLOP/s bf16 (v5p)")
    assert throughput.metrics()["mfu_full"] == throughput.mfu_full


@pytest.mark.parametrize(
    ("kind", "dtype", "text"),
    [
        ("TPU v5p", jnp.bfloat16, "459 TFLOP/s bf16 (v5p)"),
        ("TPU v5p", jnp.float32, "459 TFLOP/s bf16 (v5p)"),
        ("TPU7x", jnp.bfloat16, "2,307 TFLOP/s bf16 (tpu7x)"),
        ("NVIDIA H100 80GB HBM3", jnp.bfloat16, "989 TFLOP/s bf16 (h100)"),
        ("NVIDIA H100 80GB HBM3", jnp.float32, "67 TFLOP/s float32 (h100)"),
    ],
)
def test_a_known_chip_has_its_makers_peak(kind, dtype, text):
    assert str(find_peak(device(kind), dtype)) == text


def test_a_cpu_has_a_measured_peak_and_says_so():
    peak = find_peak(jax.devices("cpu")[0], jnp.float32)
    assert peak.source == "measured"
    assert peak.dtype == "float32"
    assert 1e9 < peak.flops_per_second < 1e14


def test_a_measured_peak_is_the_fastest_of_its_tries(monkeypatch):
    ticks = iter([0.0, 0.0, 0.010, 0.011, 0.031, 1.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr("llama_jax.observe.throughput.time.perf_counter", lambda: next(ticks))
    rate = measure_matmul(jax.devices("cpu")[0], jnp.float32, budget_seconds=0.04)
    assert rate == pytest.approx(2 * 512**3 / 0.010)


@pytest.mark.parametrize(
    ("devices", "chips"),
    [
        ([device("TPU v5p")] * 8, 8),
        ([device("TPU7x")] * 8, 4),
        ([device("NVIDIA H100", "gpu")] * 8, 8),
        ([device("AMD Something", "gpu")] * 3, 3),
        ([device("cpu", "cpu")] * 8, 1),
        ([device("cpu", "cpu", i // 4) for i in range(8)], 2),
    ],
)
def test_chips_are_counted_not_devices(devices, chips):
    assert count_chips(devices) == chips


def test_one_device_is_measured_while_the_layout_has_many(eight_devices):
    rate = measure_matmul(jax.devices()[0], jnp.float32, budget_seconds=0.01)
    assert rate > 0 and eight_devices.size == 8
