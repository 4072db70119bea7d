"""How fast a run is, and against which peak: every figure names its convention.

peak = find_peak(jax.local_devices()[0], dtype)               # dtype that matmuls run in
meter = ThroughputMeter(config.model, config.data.seq_len, peak, num_chips=count_chips())
throughput = meter(tokens, seconds)
str(throughput)
  -> 12,345 tok/s/chip · MFU 41.2% (causal) 44.0% (full) of 459 TFLOP/s bf16 (v5p)
throughput.metrics()                                          # for the metric writers
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from llama_jax.config import MeshConfig, ModelConfig
from llama_jax.flops import train_flops_per_token
from llama_jax.hardware import find_accelerator
from llama_jax.sharding import make_mesh

_SHORT = {"bfloat16": "bf16", "float32": "float32"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """What a chip could do at best.

    Attributes:
        flops_per_second: Of one chip.
        dtype: Of the matmuls that reach it: "bf16" or "float32".
        source: Name of the accelerator, or "measured" where a matmul was timed on this machine.
    """

    flops_per_second: float
    dtype: str
    source: str

    def __str__(self) -> str:
        return f"{_human_flops(self.flops_per_second)} {self.dtype} ({self.source})"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Speed of training.

    Attributes:
        tokens_per_second_per_chip: Tokens of the rows, padding included.
        mfu_causal: Model FLOPs over the peak's, in [0, 1]; attention as a causal kernel needs it.
        mfu_full: The same with all `T * T` scores counted, as PaLM and most papers do.
        peak: What both are a share of.
    """

    tokens_per_second_per_chip: float
    mfu_causal: float
    mfu_full: float
    peak: Peak

    def __str__(self) -> str:
        return (
            f"{self.tokens_per_second_per_chip:,.0f} tok/s/chip · MFU {self.mfu_causal:.1%} "
            f"(causal) {self.mfu_full:.1%} (full) of {self.peak}"
        )

    def metrics(self) -> dict[str, float]:
        """The same for the metric writers."""
        return {
            "tokens_per_second_per_chip": self.tokens_per_second_per_chip,
            "mfu_causal": self.mfu_causal,
            "mfu_full": self.mfu_full,
            "peak_flops_per_second_per_chip": self.peak.flops_per_second,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class ThroughputMeter:
    """Turns tokens and seconds into throughput.

    Attributes:
        model: Shape of the decoder.
        seq_len: Tokens of a row.
        peak: Of one chip.
        num_chips: That trained together.
    """

    model: ModelConfig
    seq_len: int
    peak: Peak
    num_chips: int

    def __call__(self, tokens: float, seconds: float) -> Throughput:
        """Throughput of `tokens`, over all chips, in `seconds`."""
        rate = tokens / seconds / self.num_chips

        def share(flops_per_token: float) -> float:
            return rate * flops_per_token / self.peak.flops_per_second

        return Throughput(
            tokens_per_second_per_chip=rate,
            mfu_causal=share(train_flops_per_token(self.model, self.seq_len, "causal")),
            mfu_full=share(train_flops_per_token(self.model, self.seq_len, "full")),
            peak=self.peak,
        )


def count_chips(devices: Sequence[Any] | None = None) -> int:
    """Chips behind JAX's devices; the CPU devices of one process are one chip."""
    devices = list(jax.devices() if devices is None else devices)
    if devices[0].platform == "cpu":
        return len({device.process_index for device in devices})
    accelerator = find_accelerator(devices[0].device_kind)
    return -(-len(devices) // (accelerator.devices_per_chip if accelerator else 1))


def find_peak(device: Any, dtype: DTypeLike) -> Peak:
    """The peak that MFU is counted against.

    An accelerator's is its maker's, for the dtype of the matmuls; where none is published for
    float32, it is the bfloat16 one. Of what is not in the table, a CPU for one, it is measured.

    Args:
        device: Any of those that train.
        dtype: That matmuls run in.
    """
    name = jnp.dtype(dtype).name
    chip = find_accelerator(device.device_kind)
    if chip is None:
        rate = measure_matmul(device, dtype)
        return Peak(flops_per_second=rate, dtype=_SHORT.get(name, name), source="measured")
    if name == "float32" and chip.float32_flops:
        return Peak(flops_per_second=chip.float32_flops, dtype="float32", source=chip.name)
    return Peak(flops_per_second=chip.bf16_flops, dtype="bf16", source=chip.name)


def measure_matmul(device: Any, dtype: DTypeLike, *, budget_seconds: float = 0.25) -> float:
    """FLOP/s of the fastest square matmul that a short try finds.

    The fastest, not the usual one: what disturbs a measurement only ever slows it, and a low peak
    would flatter the MFU.

    Args:
        device: To measure on.
        dtype: Of the matrices.
        budget_seconds: Spent multiplying, beside the compilation.
    """
    best = 0.0
    alone = make_mesh(MeshConfig(), devices=[device])  # not the run's, which may have more devices
    for size in (512, 1024):
        x = jax.device_put(np.ones((size, size), dtype), device)
        with jax.set_mesh(alone):
            multiply = jax.jit(jnp.matmul).lower(x, x).compile()
        deadline = time.perf_counter() + budget_seconds / 2
        while True:
            start = time.perf_counter()
            multiply(x, x).block_until_ready()
            end = time.perf_counter()
            best = max(best, 2.0 * size**3 / (end - start))
            if end > deadline:
                break
    return best


def _human_flops(flops_per_second: float) -> str:
    if flops_per_second >= 1e12:
        return f"{flops_per_second / 1e12:,.4g} TFLOP/s"
    return f"{flops_per_second / 1e9:.3g} GFLOP/s"
