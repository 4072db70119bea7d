"""What XLA has to know of a GPU that is not here, by chip.

Source of the H100's: XLA's text form of the target that it finds on such a GPU, as it was used to
compile for eight without one (jax 0.10.2, CUDA 12.8, cuDNN 9.8). The H200 is the same chip with
more and faster memory (NVIDIA's datasheets).
"""

_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{name}"
"""

GPU_TARGETS = {
    "h100": _HOPPER.format(
        bandwidth=3_352_320_000_000, memory=84_978_434_048, name="NVIDIA H100 80GB HBM3"
    ),
    "h200": _HOPPER.format(bandwidth=4_800_000_000_000, memory=150_000_000_000, name="NVIDIA H200"),
}
