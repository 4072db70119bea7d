"""What pip installs works without the checkout, and claims no general name."""

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


def test_an_installed_wheel_finds_recipes_pipelines_and_templates(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    subprocess.run([*install, wheel], check=True)
    # -P and another folder: nothing of the checkout may be found by accident.
    code = (
        "import llama_jax, llama_jax.recipe as recipe\n"
        "from llama_jax.cli.pipelines import load_pipelines\n"
        "print(llama_jax.__file__)\n"
        "print(load_pipelines('runner').__file__)\n"
        "print(recipe.load_recipe('llama2_7b').name)\n"
        "from llama_jax.cli.launch.templates import find_template\n"
        "print(find_template('gke/tpu.yaml'))"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    package, runner, recipe, template = run.stdout.split()
    assert Path(package).is_relative_to(site)
    assert Path(runner).is_relative_to(site)
    assert Path(template).is_relative_to(site)
    assert recipe == "llama2_7b"
