"""What the tools of a cloud say before a launch is what the launch is refused for."""

import json

import pytest

from llama_jax import __version__
from llama_jax.cli.launch.cloud import check_cluster, check_image, check_zone


def ask(**changes) -> None:
    wanted = {"claim": "shared", "queue": "tpus", "resource": "google.com/tpu", "num_chips": 64}
    check_cluster("ours", **(wanted | changes))


def queue(quota: object, **more: str) -> str:
    """A script of a cluster whose queue has a quota of chips."""
    chips, cores = ({"name": "google.com/tpu", "nominalQuota": quota}, {"name": "cpu"})
    flavors = [{"name": "v5p", "resources": [{**cores, "nominalQuota": "9k"}, chips]}]
    document = json.dumps({"spec": {"resourceGroups": [{"flavors": flavors}], **more}})
    return f"case $2 in clusterqueue) echo '{document}';; *) echo yes;; esac"


def test_a_cluster_that_has_all_is_asked_for_each(tool, capsys):
    calls = tool("kubectl", queue(64))
    ask()
    assert calls.read_text().splitlines() == [
        "auth can-i create jobsets.jobset.x-k8s.io --namespace ours",
        "get persistentvolumeclaim shared --namespace ours",
        "get localqueue tpus --namespace ours",
        "get localqueue tpus --namespace ours --output=jsonpath={.spec.clusterQueue}",
        "get clusterqueue yes --output=json",
    ]
    assert "a quota of 64 google.com/tpu\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo no", "--namespace=ours: this user may not make a JobSet there .no."),
        ("case $2 in localqueue) echo not found >&2; exit 1;; *) echo yes;; esac", "--queue=tpus"),
        ("case $1 in get) echo not found >&2; exit 1;; *) echo yes;; esac", "--claim=.*not found"),
        (
            "case $2 in clusterqueue) echo not found >&2; exit 1;; *) echo yes;; esac",
            "--queue=tpus: its cluster queue yes is not there",
        ),
        (queue("63"), "a quota of 63 google.com/tpu, and this run asks for 64"),
    ],
)
def test_a_cluster_that_lacks_something_refuses_the_launch(tool, script, complaint):
    tool("kubectl", script)
    with pytest.raises(ValueError, match=complaint):
        ask()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (queue("8", cohort="all"), "a quota of 8 google.com/tpu, and may borrow in all"),
        ("case $2 in clusterqueue) exit 1;; *) echo yes;; esac", "is not known here"),
    ],
)
def test_a_quota_that_says_nothing_for_sure_is_told_and_refuses_nothing(
    tool, script, words, capsys
):
    tool("kubectl", script)
    ask()
    assert words in capsys.readouterr().err


def test_an_image_of_another_version_is_refused_and_one_without_a_version_told(capsys):
    check_image(f"registry:5000/llama-jax:{__version__}")
    assert not capsys.readouterr().err
    check_image("registry:5000/llama-jax:latest")
    assert "is not known" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"of version 9\.9\.9"):
        check_image("registry/llama-jax:v9.9.9")


def test_chips_that_a_zone_does_not_offer_are_refused(tool):
    calls = tool("gcloud", "exit 0")
    check_zone("v5p-128", ["--zone=us-east5-a", "--project=ours"])
    assert "describe v5p-128 --zone=us-east5-a --project=ours" in calls.read_text()
    tool("gcloud", "echo PERMISSION_DENIED >&2; exit 1")
    with pytest.raises(ValueError, match=r"--zone=us-east5-a: no v5p-128 .*PERMISSION_DENIED"):
        check_zone("v5p-128", ["--zone=us-east5-a"])
