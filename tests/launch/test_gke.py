"""What Kubernetes is told, and in which order; kubectl is a stand-in."""

import json
import shlex

import pytest

from llama_jax.cli.launch import main

LAUNCH = (
    "gke llama2_7b --pod v5p:4x4x4 --image registry/llama-jax:0.1.0 --claim shared --no-doctor "
    "--namespace ours --run-dir /mnt/run/pool --data.directory /mnt/run/tokens"
)


@pytest.fixture
def kubectl(tool, tmp_path, monkeypatch):
    """Has a cluster answer by a shell script; gives the file of what it was asked."""
    monkeypatch.chdir(tmp_path)
    return lambda script: tool("kubectl", script)


def told(calls) -> list[str]:
    """What kubectl was told to do, and was not asked."""
    verbs = ("create", "delete", "apply")
    return [line for line in calls.read_text().splitlines() if line.startswith(verbs)]


STEPS = [
    "create --dry-run=server --filename runs/pool/check.yaml",
    "delete jobset pool --cascade=foreground --wait --ignore-not-found --namespace ours",
    "apply --filename runs/pool/jobset.yaml",
]


def test_the_pods_of_a_jobset_are_gone_before_those_of_the_next_begin(kubectl, capfd):
    calls = kubectl("echo yes")
    assert main(shlex.split(LAUNCH)) == 0
    assert told(calls) == STEPS
    assert not capfd.readouterr().out
    assert main([*shlex.split(LAUNCH), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["phase"], document["exit_code"]) == ("submitted", 0)
    assert document["commands"]["stop"][:3] == ["kubectl", "delete", "jobset"]
    assert main([*shlex.split(LAUNCH), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert [said.index(f"kubectl {step}\n") for step in STEPS] == sorted(
        said.index(f"kubectl {step}\n") for step in STEPS
    )


def test_a_jobset_that_the_server_refuses_leaves_the_one_that_is_there(kubectl, capfd):
    calls = kubectl("case $1 in create) echo invalid >&2; exit 1;; *) echo yes;; esac")
    assert main(shlex.split(LAUNCH)) == 1
    assert told(calls) == STEPS[:1]
    assert "failed: kubectl create --dry-run=server" in capfd.readouterr().err


def test_stop_waits_until_the_pods_have_saved(kubectl):
    calls = kubectl("echo yes")
    assert main(shlex.split(LAUNCH)) == 0
    calls.unlink()
    assert main(["stop", "pool"]) == 0
    assert told(calls) == ["delete jobset pool --cascade=foreground --wait --namespace ours"]
