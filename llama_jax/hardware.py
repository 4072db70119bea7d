"""Accelerators: peaks, memory and bandwidths of one chip, each with its source."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One chip as its maker describes it.

    Attributes:
        name: Short name, as topologies are named: "v5p", "h100".
        device_kinds: What `jax.Device.device_kind` starts with on this chip, in lower case.
        devices_per_chip: JAX devices that one chip shows.
        bf16_flops: Dense peak, FLOP/s a chip.
        float32_flops: Dense peak of float32 matmuls, FLOP/s a chip; 0 where none is published.
        hbm_bytes: Memory of a chip.
        hbm_bytes_per_second: Memory bandwidth of a chip.
        source: Where the numbers are from.
    """

    name: str
    device_kinds: tuple[str, ...]
    devices_per_chip: int = 1
    bf16_flops: float
    float32_flops: float = 0.0
    hbm_bytes: float
    hbm_bytes_per_second: float
    source: str


GIB = float(1 << 30)

ACCELERATORS = (
    Accelerator(
        name="v4",
        device_kinds=("tpu v4",),
        bf16_flops=275e12,
        hbm_bytes=32 * GIB,
        hbm_bytes_per_second=1228e9,
        source="Google Cloud TPU v4 documentation",
    ),
    Accelerator(
        name="v5e",
        device_kinds=("tpu v5 lite", "tpu v5e"),
        bf16_flops=197e12,
        hbm_bytes=16 * GIB,
        hbm_bytes_per_second=819e9,
        source="Google Cloud TPU v5e documentation",
    ),
    Accelerator(
        name="v5p",
        device_kinds=("tpu v5p", "tpu v5"),
        bf16_flops=459e12,
        hbm_bytes=95 * GIB,
        hbm_bytes_per_second=2765e9,
        source="Google Cloud TPU v5p documentation",
    ),
    Accelerator(
        name="v6e",
        device_kinds=("tpu v6 lite", "tpu v6e"),
        bf16_flops=918e12,
        hbm_bytes=32 * GIB,
        hbm_bytes_per_second=1640e9,
        source="Google Cloud TPU v6e documentation",
    ),
    Accelerator(
        name="tpu7x",
        device_kinds=("tpu7x", "tpu v7"),
        devices_per_chip=2,
        bf16_flops=2307e12,
        hbm_bytes=192 * GIB,
        hbm_bytes_per_second=7380e9,
        source="Google Cloud TPU7x documentation",
    ),
    Accelerator(
        name="a100",
        device_kinds=("nvidia a100",),
        bf16_flops=312e12,
        float32_flops=19.5e12,
        hbm_bytes=80e9,
        hbm_bytes_per_second=2039e9,
        source="NVIDIA A100 80GB SXM datasheet",
    ),
    Accelerator(
        name="h100",
        device_kinds=("nvidia h100",),
        bf16_flops=989e12,
        float32_flops=67e12,
        hbm_bytes=80e9,
        hbm_bytes_per_second=3352e9,
        source="NVIDIA H100 SXM datasheet, dense",
    ),
    Accelerator(
        name="h200",
        device_kinds=("nvidia h200",),
        bf16_flops=989e12,
        float32_flops=67e12,
        hbm_bytes=141e9,
        hbm_bytes_per_second=4800e9,
        source="NVIDIA H200 SXM datasheet, dense",
    ),
)


def find_accelerator(device_kind: str) -> Accelerator | None:
    """The chip that JAX calls `device_kind`, or None where it is not in the table (a CPU, say)."""
    kind = device_kind.lower()
    matches = [
        (len(prefix), chip)
        for chip in ACCELERATORS
        for prefix in chip.device_kinds
        if kind.startswith(prefix)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None
