"""How chips are spread over hosts, and what each platform calls them."""

import dataclasses
import re

from llama_jax.cli import versions
from llama_jax.cli.launch.restarts import check_limits
from llama_jax.hardware import GPUS_A_NODE
from llama_jax.pods import Slices, parse_slices

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
_FOLDER = re.compile(r"(/[\w.-]+)+")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Flags of every platform of other machines."""

    chips: str = ""
    """Slices or all GPUs, as in v5p:4x4x8*2 or h100:64, of a run that --pod does not lay over."""
    max_restarts: int = 100
    """Crashes after which the run is given up; starts of each host again, on TPU VMs."""
    stop_seconds: int = 600
    """How long a host may take to save when it is asked to stop."""
    doctor: bool = True
    """Compile the step for the chips first, where the compiler is installed."""
    same_versions: bool = True
    """Refuse hosts whose llama-jax, JAX or libtpu is another than here, where all was checked."""
    dry_run: bool = False
    """Print what would run, and start nothing."""

    def __post_init__(self) -> None:
        check_limits(self.max_restarts, self.stop_seconds)

    def versions(self, *, tpu: bool) -> str:
        """That hosts, of TPUs or not, must have; empty where any will do."""
        return versions.stated_here(tpu=tpu) if self.same_versions else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudOptions(LaunchOptions):
    """Flags of every platform that gives chips to a run."""

    name: str = ""
    """What the platform calls it; as the run by default."""
    spot: bool = False
    """Ask for spot chips, which may be taken away."""
    mount: str = "/mnt/run"
    """Where every host has the disk that they share, unless all lies in buckets."""

    def __post_init__(self) -> None:
        LaunchOptions.__post_init__(self)
        if not _FOLDER.fullmatch(self.mount):
            raise ValueError(f"--mount={self.mount!r} must be a folder from /, without spaces.")

    def named(self, run: str) -> str:
        """The name, of a run or its own.

        Raises:
            ValueError: If clouds refuse it.
        """
        name = self.name or run.replace("_", "-")
        check_name(name)
        return name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """The machines of a run.

    Attributes:
        slices: TPU slices, or one of all GPUs.
        per_slice: Hosts of a slice.
    """

    slices: Slices
    per_slice: int

    @property
    def chips_per_host(self) -> int:
        """Chips that one host drives."""
        return self.slices.pod.count // self.per_slice

    @property
    def is_tpu(self) -> bool:
        """Whether the chips are TPUs."""
        return self.slices.pod.chip.device_kinds[0].startswith("tpu")

    @property
    def gke_accelerator(self) -> str:
        """The label of GKE's node pools."""
        return _GKE[self.slices.pod.chip.name]

    @property
    def tpu_vm(self) -> tuple[str, str]:
        """Cloud TPU's accelerator type and the version of the software on it.

        Raises:
            ValueError: If Cloud TPU VMs have no such chip.
        """
        name = self.slices.pod.chip.name
        if name not in _TPU_VM:
            raise ValueError(
                f"--chips={name}: there are no Cloud TPU VMs with it; there are "
                f"{', '.join(_TPU_VM)}. Use `launch gke` or `launch slurm`."
            )
        prefix, cores, runtime = _TPU_VM[name]
        return f"{prefix}-{self.slices.pod.count * cores}", runtime


def find_hosts(chips: str, pod: str) -> Hosts:
    """Reads --chips, or the --pod of the run.

    Args:
        chips: CHIP:GRID, CHIP:GRID*SLICES or CHIP:COUNT; empty for `pod`.
        pod: The same, of a run that is laid over it.

    Raises:
        ValueError: If there is no such pod, or none is named.
    """
    if not chips and not pod:
        raise ValueError(
            "--pod='' names no chips: give --pod CHIP:GRID*SLICES, which lays the run over them "
            "too, or --chips for a recipe without settings for the chip."
        )
    slices = parse_slices(chips or pod, "--chips" if chips else "--pod")
    count = slices.pod.count
    if slices.pod.topology:
        flat = len(slices.pod.sides) == 2
        single = flat and count <= _LARGEST_SINGLE_HOST_2D
        per_slice = 1 if single else max(1, count // _CHIPS_A_TPU_HOST)
    elif slices.count > 1:
        raise ValueError(f"--chips={chips or pod}: slices are of TPUs; give all GPUs (h100:64).")
    else:
        per_slice = max(1, count // GPUS_A_NODE)
    return Hosts(slices=slices, per_slice=per_slice)


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
