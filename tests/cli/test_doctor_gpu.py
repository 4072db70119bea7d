"""Steps compiled for GPUs that are not here; `make test-gpu` installs what that needs."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="JAX's CUDA plugin is not installed: `make test-gpu` installs it (5.5 GB)",
)
SMALL = [
    "llama2_7b",
    *("--model.num-layers", "4", "--model.embed-dim", "512", "--model.mlp-dim", "1536"),
    *("--model.num-heads", "4", "--model.num-kv-heads", "2", "--model.vocab-size", "4096"),
    *("--data.seq-len", "1024", "--rows-per-chip", "2"),
]
LAYOUTS = {
    "alone": ["--topology", "h100:1"],
    "fsdp": ["--topology", "h100:8", "--mesh.fsdp", "8"],
    "two nodes": ["--topology", "h100:2x8", "--mesh.fsdp", "8", "--mesh.replica", "2"],
    "tensor": ["--topology", "h200:8", "--mesh.fsdp", "4", "--mesh.tensor", "2"],
}


def doctor(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "llama_jax.cli.main", "doctor", *SMALL, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder), "COLUMNS": "100"},
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_compiles_with_the_kernels_and_collectives_of_its_layout(layout, tmp_path):
    done = doctor(tmp_path, *LAYOUTS[layout], "--json")
    assert done.returncode == 0, done.stderr
    program = json.loads(done.stdout)["program"]
    launches = {kernel["name"]: kernel["launches"] for kernel in program["kernels"]}
    assert launches == {
        "cudnn$fmhaScaleBiasSoftmax": 8,  # once more in the backward pass of each of four layers
        "cudnn$fmhaScaleBiasSoftmaxBackward": 4,
    }
    kinds = {one["kind"] for one in program["collectives"] if one["bytes"] > 1e5}
    scattered = {"all-gather", "reduce-scatter"}
    assert (
        kinds
        == {
            "alone": set(),
            "fsdp": scattered,
            "two nodes": scattered | {"all-reduce"},
            "tensor": scattered | {"all-reduce"},
        }[layout]
    )


def test_an_option_that_the_compiler_does_not_take_is_named(tmp_path):
    done = doctor(tmp_path, *LAYOUTS["alone"], "--xla", "nonsense=1")
    assert done.returncode == 2
    assert "--xla: the compiler does not take it" in done.stderr and "nonsense" in done.stderr
