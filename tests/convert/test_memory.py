"""Memory of a conversion does not grow with depth, each in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.convert.hf_folder import shrunk, write_hf

# What a parent's process counts of its child includes pages that the parent itself had.
PROGRAM = """
import sys
from llama_jax.cli.main import main
assert main(["convert", *sys.argv[1:]]) == 0
print(open("/proc/self/status").read())
"""


def peak_bytes(*arguments) -> int:
    """Peak resident memory of a command."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert kilobytes
    return 1024 * int(kilobytes[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_depth(tmp_path):
    peaks = {}
    for layers in (8, 32):
        folder = tmp_path / str(layers)
        # 7.3 MB a layer in bfloat16: 24 more of them are 175 MB.
        model = shrunk(num_layers=layers, embed_dim=512, mlp_dim=1664, num_heads=8, head_dim=128)
        write_hf(folder / "hf", model, "bfloat16", num_files=2)
        peaks[layers] = [
            peak_bytes("from-hf", folder / "hf", folder / "run"),
            peak_bytes("to-hf", folder / "run", folder / "back", "--without-tokenizer"),
        ]
    for shallow, deep in zip(peaks[8], peaks[32], strict=True):
        assert deep - shallow < 30e6
