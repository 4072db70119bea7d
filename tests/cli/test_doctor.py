"""`llama-jax doctor` refuses what cannot be compiled, at once, and says what could be."""

import importlib.util
import os
import subprocess
import sys

import pytest

from llama_jax.cli.main import main


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())


def refusal(capsys, *arguments):
    assert main(["doctor", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--topology is needed"),
        (["--topology", "v9:4x4"], "There are: v4, v5e, v5p, v6e, tpu7x"),
        (["--topology", "v5e:3x5"], "There are: 1x1, 2x2, 2x4, 4x4"),
        (["--topology", "v5p:4x4x7"], "Did you mean v5p:4x4x8"),
        (["--topology", "v5p:4x4x7"], "all grids of multiples of 4 up to 16x16x24"),
        (["--topology", "v5p:4x4x8", "--slices", "0"], "--slices=0 must be 1 or more"),
        (["--topology", "v5p:4x4x8", "--rows-per-chip", "-1"], "must be positive"),
        (["--topology", "v5p:4x4x8", "--goodput", "2"], "--goodput=2.0 must be in (0, 1]"),
        (["--pod", "v5p:4x4x8", "--topology", "v9:3"], "leave out --topology and --slices"),
        (["--pod", "v5p:4x4x8", "--slices", "7"], "v5e:16x16*4 for four"),
        (["--topology", "h100:8"], "pip install 'llama-jax[cuda]'"),
        (["--topology", "a100:8"], "GPUs are h100, h200"),
        (["--topology", "h100:12"], "comes in nodes of 8"),
        (["--topology", "h100:8x4"], "or nodes and GPUs (h100:8x8)"),
        (["--topology", "h100:8", "--slices", "2"], "GPUs have no slices"),
        (["--topology", "v5e"], "by their grid of chips"),
        (["--topology", "v5p:4x4x8", "--rows-per-chip", "0.3"], "makes a batch of 38.4 rows"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(capsys, arguments, complaint):
    assert complaint in refusal(capsys, "llama2_7b", *arguments)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_libtpu_it_says_how_to_install_it(capsys):
    assert "pip install 'llama-jax[tpu]'" in refusal(capsys, "llama2_7b", "--topology", "v5p:4x4x8")


def test_help_and_refusals_do_not_wait_for_jax():
    code = (
        "import sys\nfrom llama_jax.cli.main import main\n"
        "assert main(['doctor', 'llama2_7b', '--topology', 'v5p:4x4x7']) == 2\n"
        "try: main(['doctor', '--help'])\nexcept SystemExit: pass\n"
        "print('jax' in sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1] == "False"
    assert "--topology v5p:4x4x8 --slices 2" in run.stdout
