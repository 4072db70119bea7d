"""What the backward pass finds saved, by name."""

from collections.abc import Callable
from typing import Any

import jax

from llama_jax.sharding import platform

# Named with `checkpoint_name` where they are computed.
INPUT = "block_input"
ATTENTION = ("attention",)
GATE = ("mlp_gate", "mlp_gate_up", *ATTENTION)
QKV = ("query", "key", "value", *ATTENTION)
MATMULS = (*QKV, "mlp_gate_up", "mlp_gate", "mlp_up")


def rematerialize(block: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """Wraps one block of the model so that its backward pass saves what `policy` says.

    Args:
        block: Body of the scan over layers.
        policy: As `ComputeConfig.remat` describes.

    Raises:
        ValueError: If the platform has no host memory to offload to.
    """
    if policy == "none":
        return block
    saved = jax.checkpoint_policies
    match policy:
        case "full":
            keep = saved.nothing_saveable
        case "attention":
            keep = saved.save_only_these_names(*ATTENTION)
        case "qkv":
            keep = saved.save_only_these_names(*QKV)
        case "gate":
            keep = saved.save_only_these_names(*GATE)
        case "dots":
            keep = saved.save_from_both_policies(
                saved.dots_with_no_batch_dims_saveable, saved.save_only_these_names(*ATTENTION)
            )
        case "offload" | "offload_inputs":
            check_host_memory(policy)
            keep = saved.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=list(MATMULS) if policy == "offload" else [INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            )
        case _:
            raise AssertionError(policy)
    # The scan itself keeps XLA from merging the recomputation with the forward pass.
    return jax.checkpoint(block, policy=keep, prevent_cse=False)


def check_host_memory(policy: str) -> None:
    """Refuses platforms on which device and host memory are not apart.

    Raises:
        ValueError: If what the policy offloads has nowhere to go.
    """
    if platform() != "cpu":
        return  # TPUs and GPUs have both, and need not be here
    kinds = {memory.kind for memory in jax.local_devices(backend="cpu")[0].addressable_memories()}
    if not {"device", "pinned_host"} <= kinds:
        raise ValueError(
            f"compute.remat={policy!r} needs device memory and pinned host memory; the CPU has "
            f"{', '.join(sorted(kinds))}. Use 'full' or 'attention'."
        )
