"""Eight simulated CPU devices, so that every layout can be tested on a laptop."""

import shutil
import subprocess
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

import tests.shapes

install_import_hook(tests.shapes.PACKAGES, "tests.shapes.enforce")

# Shapes are enforced in what is imported from here on.
from llama_jax.config import MeshConfig  # noqa: E402
from llama_jax.sharding import make_mesh, use_layout  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

PARITY = Path(__file__).parent / "parity"


def pytest_collection_modifyitems(items):
    for item in items:
        if PARITY in item.path.parents:
            item.add_marker(pytest.mark.parity)


@pytest.fixture
def one_device():
    """Enters the layout of a single device; yields its mesh."""
    mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
    with use_layout(mesh):
        yield mesh


@pytest.fixture
def eight_devices():
    """Enters a layout that splits over fsdp, context and tensor at once; yields its mesh."""
    mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
    with use_layout(mesh):
        yield mesh


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "llama_jax_test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
