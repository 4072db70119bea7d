"""What pip installs works without the checkout, and claims no general name."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", out, ROOT], check=True)
    return next(out.glob("*.whl"))


def test_a_wheel_installs_one_top_level_package(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"llama_jax"}


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """Where the wheel is installed, without the checkout."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    subprocess.run([*install, wheel], check=True)
    return site


@pytest.fixture
def python(site, tmp_path):
    """Runs Python in another folder; nothing of the checkout may be found by accident."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_installed_wheel_finds_recipes_pipelines_and_templates(python, site):
    code = (
        "import llama_jax, llama_jax.recipe as recipe\n"
        "from llama_jax.cli.pipelines import load_pipelines\n"
        "print(llama_jax.__file__)\n"
        "print(load_pipelines('runner').__file__)\n"
        "print(recipe.load_recipe('llama2_7b').name)\n"
        "from llama_jax.cli.launch.templates import find_template\n"
        "print(find_template('gke/tpu.yaml'))"
    )
    package, runner, recipe, template = python("-c", code).split()
    assert Path(package).is_relative_to(site)
    assert Path(runner).is_relative_to(site)
    assert Path(template).is_relative_to(site)
    assert recipe == "llama2_7b"


def test_an_installed_wheel_does_the_whole_job(python, tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / f"texts/{number}.txt").write_text(f"{number} men and {number + 1} wives. " * 9)

    def ask(*arguments: str) -> dict:
        return json.loads(python("-m", "llama_jax.cli.main", *arguments, "--json"))

    small = ("--tokenizer.vocab-size", "300", "--workers", "1")
    built = ask("data", "build", "demo", "--out", "data", "--input", "texts", *small)
    tokens = built["sources"]["files"]["splits"]["heldout"]["tokens"]
    assert tokens and ask("tokenizer", "inspect", "data/tokenizer.model")["vocab_size"] == 300
    short = (
        *("--data.directory", "data", "--data.seq-len", "32", "--compute.loss-chunks", "1"),
        *("--train.num-steps", "2", "--schedule.warmup-steps", "1", "--schedule.decay-steps", "1"),
        *("--train.batch-size", "2", "--evaluate.num-batches", "0", "--model.num-layers", "1"),
    )
    trained = ask("train", "demo", "--run-dir", "run", *short)
    assert trained["step"] == 2
    scored = ask("eval", "run")
    assert scored["held_out"] == trained["held_out"] and scored["held_out"]["files"]["documents"]
    (completion,) = ask("generate", "run", "--prompt", "7 men", "--max-new-tokens", "4")[
        "completions"
    ]
    assert len(completion["tokens"]) == 4 or completion["finish"] != "length"
