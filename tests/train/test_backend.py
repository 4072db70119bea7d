"""What the step asks of XLA and of the C library on CPU."""

import platform
import subprocess
import sys
from typing import NamedTuple

import jax
import pytest

from llama_jax.train import backend
from llama_jax.train.backend import compiler_options, knows


class Device(NamedTuple):
    """What a program is compiled for."""

    platform: str
    device_kind: str


@pytest.fixture
def every_option_is_known(monkeypatch):
    monkeypatch.setattr(backend, "knows", lambda options, device: True)


TOUCH_AND_FREE = """
import resource
from llama_jax.train.backend import keep_freed_memory

keep_freed_memory()
faults = []
for _ in range(3):
    b"x" * (64 << 20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[2] - faults[1])
"""


def test_options_are_those_of_the_platform(every_option_is_known):
    cpu = compiler_options(Device("cpu", "cpu"))
    tpu = compiler_options(Device("tpu", "TPU v5 lite"))
    assert cpu and tpu
    assert not cpu.keys() & tpu.keys()
    assert compiler_options(Device("gpu", "NVIDIA H100 80GB HBM3")) is None


def test_only_chips_that_have_the_memory_give_more_of_it_to_a_fusion(every_option_is_known):
    option = "xla_tpu_scoped_vmem_limit_kib"
    assert option in (compiler_options(Device("tpu", "TPU v5")) or {})
    assert option not in (compiler_options(Device("tpu", "TPU v99")) or {})


def test_an_option_that_the_compiler_lacks_is_left_out_and_named(monkeypatch):
    gone = "xla_tpu_overlap_compute_collective_tc"
    monkeypatch.setattr(backend, "knows", lambda options, device: gone not in options)
    with pytest.warns(UserWarning, match=gone):
        options = compiler_options(Device("tpu", "TPU v5"))
    assert options
    assert gone not in options


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
@pytest.mark.parametrize(
    ("platforms", "most_faults"),
    [
        pytest.param("cpu", 1_000, id="on CPU freed memory is kept, not cleared anew"),
        pytest.param("cuda", None, id="elsewhere the C library is left as it is"),
    ],
)
def test_memory_between_steps(platforms, most_faults):
    answer = subprocess.run(
        [sys.executable, "-c", TOUCH_AND_FREE],
        env={"JAX_PLATFORMS": platforms},
        capture_output=True,
        text=True,
        check=True,
    )
    faults = int(answer.stdout)
    assert faults < most_faults if most_faults else faults > 1_000


def test_an_option_that_xla_has_dropped_is_not_asked_for():
    device = jax.devices("cpu")[0]
    assert knows({"xla_backend_optimization_level": "1"}, device)
    assert not knows({"xla_cpu_gone_with_the_wind": "true"}, device)
