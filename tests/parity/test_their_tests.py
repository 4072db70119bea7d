"""transformers' own tests of a model pass with the weights that we export.

The tests are those of the source distribution of the transformers that is installed, which pip
fetches: 10 MB. In all this takes a minute or so.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree
from pathlib import Path

import pytest

from llama_jax.convert.hugging_face import export_hugging_face
from llama_jax.convert.origin import Origin
from llama_jax.convert.words import no_words
from tests.parity.exported import VARIANTS, random_weights, run_config

pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

# What the shared tests import from folders that the distribution leaves out.
LEFT_OUT = {
    "exporters/test_export.py": "class ExportTesterMixin: ...\n",
    "generation/test_utils.py": "class GenerationTesterMixin: ...\n",
}
# These must be among those that pass, whatever else a release has.
KNOWN = {
    "test_attention_outputs",
    "test_batching_equivalence",
    "test_causal_lm_loss_honors_shift_labels",
    "test_determinism",
    "test_gradient_checkpointing_enable_disable",
    "test_hidden_states_output",
    "test_inputs_embeds_matches_input_ids",
    "test_model_rope_scaling_frequencies",
    "test_resize_tokens_embeddings",
    "test_save_load",
    "test_the_weights_are_the_saved_ones",
    "test_tied_weights_keys",
    "test_torch_save_load",
    "test_training",
}


def fetch(*arguments: str) -> None:
    """Runs pip, or skips the test."""
    command = [sys.executable, "-m", "pip", *arguments]
    options = ["--quiet", "--no-deps", "--timeout", "20", "--retries", "1"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip {arguments[0]} took longer than four minutes")
    if done.returncode:
        pytest.skip(f"pip cannot get {arguments[-1]}: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def their_tests(tmp_path_factory):
    """A folder with their shared tests as a package, and what they import."""
    folder = tmp_path_factory.mktemp("distribution")
    wanted = f"transformers=={transformers.__version__}"
    fetch("download", "--no-binary", "transformers", "--dest", str(folder), wanted)
    fetch("install", "--target", str(folder), "parameterized")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (found,) = folder.glob("transformers-*/tests")
    if not (found / "test_modeling_common.py").is_file():
        pytest.skip(f"the source distribution of {wanted} has no shared tests")
    shutil.move(found, folder / "their")
    (folder / "their" / "__init__.py").touch()
    for name, text in LEFT_OUT.items():
        path = folder / "their" / name
        path.parent.mkdir()
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    ours = Path(__file__).with_name("their_model_tests.py")
    shutil.copy(ours, folder / "their" / "test_saved.py")
    return folder


def outcomes(report: Path) -> dict[str, set[str]]:
    """Names of the tests that passed, were skipped or failed."""
    names = {"passed": set(), "skipped": set(), "failed": set()}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"skipped", "failure", "error"}
        kind = "failed" if kinds - {"skipped"} else "skipped" if kinds else "passed"
        names[kind].add(case.attrib["name"])
    return names


@pytest.mark.parametrize("variant", ["grouped-query", "tied"])
def test_their_model_tests_pass(their_tests, tmp_path, variant):
    # Their tests want models of few layers.
    model = dataclasses.replace(VARIANTS[variant], num_layers=2)
    arguments = {"origin": Origin(step=1), "words": no_words()}
    export_hugging_face(random_weights(model), run_config(model), tmp_path / "hf", **arguments)
    report = tmp_path / "report.xml"
    environment = {
        **os.environ,
        "PYTHONPATH": str(their_tests),
        "SAVED_MODEL": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTEST_ADDOPTS": "",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["--import-mode=importlib", f"--rootdir={their_tests}", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, "their/test_saved.py"],
        cwd=their_tests,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert report.is_file(), done.stdout + done.stderr
    names = outcomes(report)
    assert not names["failed"], done.stdout[-4000:]
    assert names["passed"] >= KNOWN, KNOWN - names["passed"]
    print(", ".join(f"{len(tests)} {kind}" for kind, tests in names.items()))
