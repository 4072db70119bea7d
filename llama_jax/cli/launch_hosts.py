"""How chips are spread over hosts, and what each platform calls them."""

import dataclasses
import importlib
import re

from llama_jax.hardware import GPUS_A_NODE, Pod, parse_pod

_CHIPS_A_TPU_HOST = 4
_LARGEST_SINGLE_HOST_2D = 8
# Labels of GKE's node pools. Source: Google Kubernetes Engine documentation, "Plan TPUs in GKE"
# and "GPU accelerator labels".
_GKE = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
    "a100": "nvidia-a100-80gb",
    "h100": "nvidia-h100-80gb",
    "h200": "nvidia-h200-141gb",
}
# Cloud TPU's names, and the cores of a chip that they count. Source: Google Cloud TPU
# documentation, "TPU configurations" and "TPU software versions".
_TPU_VM = {
    "v4": ("v4", 2, "tpu-ubuntu2204-base"),
    "v5e": ("v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": ("v5p", 2, "v2-alpha-tpuv5"),
    "v6e": ("v6e", 1, "v2-alpha-tpuv6e"),
}
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """The machines of a run.

    Attributes:
        pod: Chips of a slice, or all GPUs.
        slices: TPU slices; 1 for GPUs.
        per_slice: Hosts of a slice.
    """

    pod: Pod
    slices: int
    per_slice: int

    @property
    def chips_per_host(self) -> int:
        """Chips that one host drives."""
        return self.pod.count // self.per_slice

    @property
    def num_devices(self) -> int:
        """JAX devices of the whole run."""
        return self.slices * self.pod.count * self.pod.chip.devices_per_chip

    @property
    def is_tpu(self) -> bool:
        """Whether the chips are TPUs."""
        return not self.pod.chip.name.startswith(("a", "h"))

    @property
    def gke_accelerator(self) -> str:
        """The label of GKE's node pools."""
        return _GKE[self.pod.chip.name]

    @property
    def tpu_vm(self) -> tuple[str, str]:
        """Cloud TPU's accelerator type and the version of the software on it.

        Raises:
            ValueError: If Cloud TPU VMs have no such chip.
        """
        name = self.pod.chip.name
        if name not in _TPU_VM:
            raise ValueError(
                f"--chips={name}: there are no Cloud TPU VMs with it; there are "
                f"{', '.join(_TPU_VM)}. Use `launch gke` or `launch slurm`."
            )
        prefix, cores, runtime = _TPU_VM[name]
        return f"{prefix}-{self.pod.count * cores}", runtime


def find_hosts(chips: str, slices: int = 1) -> Hosts:
    """Reads --chips and --slices.

    Raises:
        ValueError: If there is no such pod.
    """
    pod = parse_pod(chips)
    if slices < 1:
        raise ValueError(f"--slices={slices} must be positive.")
    if pod.topology:
        flat = pod.topology.count("x") == 1
        single = flat and pod.count <= _LARGEST_SINGLE_HOST_2D
        per_slice = 1 if single else max(1, pod.count // _CHIPS_A_TPU_HOST)
    elif slices > 1:
        raise ValueError(f"--slices={slices} is of TPUs; give all GPUs in --chips.")
    else:
        per_slice = max(1, pod.count // GPUS_A_NODE)
    return Hosts(pod=pod, slices=slices, per_slice=per_slice)


def check_name(name: str) -> None:
    """Refuses names that clouds refuse.

    Raises:
        ValueError: Saying what a name may be.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"--name={name!r} must be up to 40 of a-z, 0-9 and '-', begin with a letter and not "
            "end with '-': hosts are called after it. Give another --name."
        )


def compiler_flags(pod: Pod) -> str:
    """What XLA is told on these chips, for `LIBTPU_INIT_ARGS` or `XLA_FLAGS`; empty for nothing."""
    try:
        known = importlib.import_module("llama_jax.config.pod")
    except ImportError:
        return ""
    flags = getattr(known, "XLA_FLAGS", {}).get(pod.chip.name, {})
    return " ".join(f"--{name}={value}" for name, value in flags.items())
