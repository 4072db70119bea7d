"""Memory of a conversion does not grow with depth, each in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.convert.hf_folder import DTYPES, save, shrunk, write_hf

CONVERT = """
from llama_jax.cli.main import main
assert main(["convert", *sys.argv[1:]]) == 0
"""
COMPARE_LOGITS = """
from pathlib import Path
import numpy as np
from llama_jax.cli.convert.check import open_weights
from llama_jax.convert.agreement import compare_logits, rows_of
from llama_jax.convert.transformers_program import TransformersProgram
folder = Path(sys.argv[1])
weights = open_weights(folder)
rows = rows_of(weights.model, np.arange(128) % 96)
assert compare_logits(weights, TransformersProgram(folder), rows)["agrees"]
"""


def peak_bytes(program, *arguments) -> int:
    """Peak resident memory of a program."""
    # What a parent's process counts of its child includes pages that the parent itself had.
    program = f"import sys\n{program}\nprint(open('/proc/self/status').read())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert kilobytes
    return 1024 * int(kilobytes[1])


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]


def test_memory_does_not_grow_with_depth(tmp_path):
    peaks = {}
    for layers in (8, 32):
        folder = tmp_path / str(layers)
        # 7.3 MB a layer in bfloat16: 24 more of them are 175 MB.
        model = shrunk(num_layers=layers, embed_dim=512, mlp_dim=1664, num_heads=8, head_dim=128)
        write_hf(folder / "hf", model, "bfloat16", num_files=2)
        peaks[layers] = [
            peak_bytes(CONVERT, "from-hf", folder / "hf", folder / "run"),
            peak_bytes(CONVERT, "to-hf", folder / "run", folder / "back", "--without-tokenizer"),
        ]
    for shallow, deep in zip(peaks[8], peaks[32], strict=True):
        assert deep - shallow < 30e6


def test_memory_of_a_check_does_not_grow_with_depth(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
    peaks = {}
    for layers in (4, 16):
        # 14.7 MB a layer in float32: 12 more of them are 177 MB.
        model = shrunk(num_layers=layers, embed_dim=512, mlp_dim=1664, num_heads=8, head_dim=128)
        folder = tmp_path / str(layers)
        tensors = write_hf(folder, model, "bfloat16")
        # Logits of units, which float32 can tell.
        save(
            folder, {name: value * DTYPES["bfloat16"].type(0.04) for name, value in tensors.items()}
        )
        peaks[layers] = peak_bytes(COMPARE_LOGITS, folder)
    assert peaks[16] - peaks[4] < 60e6


FIND_TIED = """
import json
from pathlib import Path
import torch
from llama_jax.convert import meta_import
folder, rows = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
params = {"dim": 256, "n_layers": 1, "n_heads": 2, "multiple_of": 256, "ffn_dim_multiplier": 0.1}
(folder / "params.json").write_text(json.dumps(params | {"max_seq_len": 64}))
D, F = 256, 256
shapes = {"attention.wq": (D, D), "attention.wk": (D, D), "attention.wv": (D, D), "ffn_norm": (D,)}
shapes |= {"attention.wo": (D, D), "feed_forward.w1": (F, D), "feed_forward.w2": (D, F)}
shapes |= {"feed_forward.w3": (F, D), "attention_norm": (D,)}
tensors = {f"layers.0.{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
tables = {"tok_embeddings.weight": torch.zeros(1, D), "output.weight": torch.zeros(1, D)}
tables = {name: value.expand(rows, D).contiguous() for name, value in tables.items()}
torch.save(tensors | tables | {"norm.weight": torch.zeros(D)}, folder / "consolidated.00.pth")
del tables
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
plan = meta_import.plan_meta_import(folder)
assert plan.model.tie_embeddings
"""


def test_the_look_for_tied_tables_holds_a_few_rows_of_them(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
    small, large = (peak_bytes(FIND_TIED, tmp_path / str(rows), rows) for rows in (10_000, 100_000))
    # Tables of 10 and 102 MB, both equal.
    assert large - small < 30e6
