"""The guide to pods holds what it says: each command is marked, and each launch can be read."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from llama_jax.cli.launch import PLATFORMS, VERBS, main
from llama_jax.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/pods.md").read_text()
MARK = re.compile(r"(?P<command>.*?)\s+# (?P<kind>tested|checked|not run)(: (?P<test>test_\w+))?.*")


def commands() -> list[tuple[str, str, str]]:
    """Of each command in the guide: itself on one line, its kind of mark and the test it names."""
    prose = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if line.startswith("    ")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, joined.splitlines()):
        match = MARK.fullmatch(line.strip())
        assert match, f"not marked: {line}"
        found.append((match["command"], match["kind"], match["test"] or ""))
    return found


def starting_with(words: str) -> list[str]:
    return [command for command, _, _ in commands() if command.startswith(words)]


def test_each_command_is_marked_and_each_mark_names_a_test_that_is_there():
    for command, kind, test in commands():
        assert bool(test) == (kind != "not run"), command
        assert not test or list((ROOT / "tests").rglob(f"{test}.py")), f"{command}: {test}"
    assert len(commands()) > 40


@pytest.mark.parametrize("command", starting_with("llama-jax "))
def test_each_command_of_ours_is_one_and_each_launch_can_be_read(
    command, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    _, name, *rest = shlex.split(command)
    assert name in COMMANDS
    if name == "launch" and rest[0] not in VERBS:
        assert rest[0] in PLATFORMS
        assert main([word for word in rest if word != "--dry-run"] + ["--dry-run"]) == 0
        assert capsys.readouterr().out


def test_every_platform_and_every_verb_is_in_the_guide():
    words = {shlex.split(command)[2] for command in starting_with("llama-jax launch ")}
    assert words == {*PLATFORMS, *VERBS} - {"supervise"}


def test_what_is_given_to_kubernetes_is_yaml():
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    kinds = [document["kind"] for block in blocks for document in yaml.safe_load_all(block)]
    assert kinds == ["ResourceFlavor", "ClusterQueue", "LocalQueue", "PersistentVolumeClaim"]


@pytest.mark.slow
def test_gcloud_knows_each_flag_of_its_commands():
    """By its own help, which needs no account and no network."""
    if shutil.which("gcloud") is None:
        pytest.skip("needs gcloud")
    wanted: dict[str, set[str]] = {}
    for command in starting_with("gcloud "):
        words = shlex.split(command)
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        names = words[1 : next((i for i, w in enumerate(words) if w.startswith("--")), len(words))]
        # What follows the command's own words begins with something that is no such word.
        own = [w for w in names if re.fullmatch(r"[a-z][a-z-]+", w)]
        wanted.setdefault(" ".join(own), set()).update(flags)
    assert len(wanted) > 10
    for own, flags in wanted.items():
        page = help_of(own.split())
        known = set(re.findall(r"--[a-z0-9-]+", page))
        assert flags <= known | {"--format"}, f"{own}: {flags - known}"


def help_of(words: list[str]) -> str:
    """gcloud's help of the longest of its commands that these words begin with."""
    for length in range(len(words), 1, -1):
        done = subprocess.run(
            ["gcloud", *words[:length], "--help"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return re.sub(r".\x08|\x1b\[[0-9;]*m|\x1b", "", done.stdout)
    raise AssertionError(f"gcloud has no {' '.join(words)}")
