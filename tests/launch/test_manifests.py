"""What each platform is told: as in the golden files, and as its own schemas and parsers want it.

`LLAMA_JAX_UPDATE_GOLDEN=1 pytest tests/launch/test_manifests.py` writes the golden files anew.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from llama_jax.cli import versions
from llama_jax.cli.launch import main
from llama_jax.cli.launch.job import Job
from llama_jax.cli.launch.preflight import ask_doctor
from llama_jax.cli.launch.templates import render
from llama_jax.recipe import load_recipe, recipe_folder
from tests.train.tiny_run import tiny_config

GOLDEN = Path(__file__).parent / "golden"
DATA = "--data.directory /mnt/run/tokens"
GKE = f"--image registry/llama-jax:0.1.0 --claim shared {DATA}"
POOL = f"--run-dir /mnt/run/pool {DATA}"
LAUNCHES = {
    "gke_one_slice.yaml": f"gke llama2_7b --pod v5p:4x4x4 --run-dir /mnt/run/llama2-7b {GKE}",
    "gke_two_slices.yaml": f"gke llama2_70b --pod v5p:8x8x8*2 --run-dir /mnt/run/llama2-70b {GKE}"
    " --queue tpus --priority high --service-account trainer --spot",
    "gke_gpus.yaml": f"gke llama2_7b --chips h100:64 --queue gpus --run-dir /mnt/run/pool {GKE}",
    "slurm_gpu.sh": f"slurm llama2_7b --nodes 8 --cpus-per-task 12 {POOL}"
    " --partition big --account us --setup 'module load cuda'",
    "slurm_node.sh": f"slurm llama2_7b --nodes 8 --tasks-per-node 1 --time 2-00:00:00 {POOL}",
    "tpu_vm_one_slice.sh": f"tpu-vm llama2_7b --chips v6e:16x16 --zone us-east5-b {POOL}"
    " --install 'pip install llama-jax[tpu]'",
    "tpu_vm_two_slices.sh": f"tpu-vm llama2_7b --pod v5p:4x4x4*2 --zone us-east5-a {POOL}"
    " --project ours --spot"
    " --install 'pip install llama-jax[tpu]' --disk 10.0.0.2:/share",
    "tpu_vm_buckets.sh": "tpu-vm llama2_7b --pod v5p:4x4x4 --zone us-east5-a --install true"
    " --run-dir gs://ours/pool --data.directory gs://ours/tokens",
    "gke_buckets.yaml": "gke llama2_7b --pod v5p:4x4x4 --image registry/llama-jax:0.1.0"
    " --run-dir gs://ours/pool --data.directory gs://ours/tokens",
    "ray.txt": f"ray llama2_7b --workers 8 --gpus-per-worker 8 {POOL}",
    "local.sh": f"local llama2_7b --processes 2 --train.seed 3 {POOL}",
}


@pytest.fixture(autouse=True)
def same_versions(monkeypatch):
    """The golden files name versions, which are not those of today."""

    def stated_here(*, tpu: bool) -> str:
        return "llama-jax==0.1.0 jax==0.10.2" + tpu * " libtpu==0.0.42"

    monkeypatch.setattr(versions, "stated_here", stated_here)


def dry_run(capsys, command: str) -> str:
    assert main([*shlex.split(command), "--dry-run"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", LAUNCHES)
def test_what_would_run_is_what_it_was(name, capsys):
    text = dry_run(capsys, LAUNCHES[name])
    if os.environ.get("LLAMA_JAX_UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", LAUNCHES)
def test_what_would_run_is_one_document_for_programs(name, capsys):
    text = dry_run(capsys, LAUNCHES[name])
    document = json.loads(dry_run(capsys, f"{LAUNCHES[name]} --json"))
    platform = LAUNCHES[name].partition(" ")[0]
    assert (document["platform"], document["phase"]) == (platform, "dry run")
    would = document["would_run"]
    whole = would.get("script") or would.get("manifest")
    assert whole is None or whole.rstrip("\n") in text
    if platform == "local":
        assert [len(process["environment"]) for process in would["processes"]] == [6, 6]
        assert "--json" not in would["processes"][0]["argv"]
    assert "--json" not in json.dumps(would)


@pytest.mark.parametrize("name", [name for name in LAUNCHES if name.endswith(".sh")])
def test_a_script_is_one_for_bash(name):
    subprocess.run(["bash", "-n", GOLDEN / name], check=True)


def manifests() -> list[Path]:
    return sorted(GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_hosts_and_chips_of_a_jobset_multiply_to_those_asked_for(path):
    jobset = yaml.safe_load(path.read_text())
    [job] = jobset["spec"]["replicatedJobs"]
    pods = job["replicas"] * job["template"]["spec"]["parallelism"]
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    [chips] = container["resources"]["limits"].values()
    asked = {"gke_one_slice": 64, "gke_two_slices": 1024, "gke_gpus": 64, "gke_buckets": 64}
    assert pods * chips == asked[path.stem]
    assert container["command"] == ["llama-jax", "train"] and container["args"][0] != "--chips"
    queue = jobset["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
    assert queue == {"gke_two_slices": "tpus", "gke_gpus": "gpus"}.get(path.stem)


def lost(given, kept, place: str = "") -> list[str]:
    """Where a document holds what another one lacks or has otherwise, or lacks what it needs."""
    if isinstance(given, dict) and isinstance(kept, dict):
        parts = [lost(value, kept.get(key), f"{place}.{key}") for key, value in given.items()]
        # What is needed and missing is filled in with nothing.
        needed = [f"{place}.{key}" for key in kept.keys() - given.keys() if kept[key] == ""]
        return [*needed, *(found for part in parts for found in part)]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return [found for index, pair in pairs for found in lost(*pair, f"{place}[{index}]")]
    return [] if given == kept else [place]


def fields_lost(jobset) -> list[str]:
    """What the models made of the API of JobSet and Kubernetes do not know of a manifest.

    Raises:
        ValueError: If a field is of another type, or one that is needed is missing.
    """
    models = pytest.importorskip("kubeflow_trainer_api.models.jobset_v1alpha2_job_set")
    return lost(jobset, models.JobsetV1alpha2JobSet.from_dict(jobset).to_dict())


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_the_api_of_jobset_and_kubernetes_knows_every_field(path):
    assert fields_lost(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    ("line", "other", "complaint"),
    [
        ("maxRestarts: 100", "maxRestart: 100", ".spec.failurePolicy.maxRestart"),
        ("restartPolicy: Never", "restartPolicys: Never", "spec.restartPolicys"),
        ("maxRestarts: 100", 'maxRestarts: "100"', "maxRestarts"),
        ("        action: FailJobSet\n", "", "action"),
        ("completions: 16", "completions: many", "completions"),
    ],
)
def test_the_api_refuses_what_is_misspelt_missing_or_of_another_type(line, other, complaint):
    text = (GOLDEN / "gke_one_slice.yaml").read_text()
    assert line in text
    try:
        [found] = fields_lost(yaml.safe_load(text.replace(line, other)))
    except ValueError as refusal:
        found = str(refusal)
    assert complaint in found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpu_vm_one_slice.sh", "tpu_vm_two_slices.sh"])
def test_gcloud_knows_each_flag(name):
    """By its own help, which needs no account and no network."""
    if shutil.which("gcloud") is None:
        pytest.skip("needs gcloud")
    text = (GOLDEN / name).read_text()
    where = re.findall(r'queued-resources "\$@" (.*)', text)[0].split()
    for verb in ("create", "describe", "delete", "ssh"):
        help_page = subprocess.run(
            ["gcloud", "compute", "tpus", "queued-resources", verb, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        known = set(re.findall(r"--[a-z-]+", re.sub(r".\x08|\x1b\[[0-9;]*m|\x1b", "", help_page)))
        calls = re.findall(rf"queue {verb} (.*?)(?:;;|2>|$)", text, re.MULTILINE)
        flags = {word.partition("=")[0] for call in calls for word in call.split()}
        used = {flag for flag in (*flags, *where) if flag.startswith("--")}
        used = {flag.partition("=")[0] for flag in used}
        assert calls and used <= known | {"--format", "--quiet", "--project"}, used - known


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (f"gke llama2_7b --pod v5p:4x4x4 {GKE}", "--run-dir='runs/llama2_7b' must lie below"),
        (f"gke llama2_7b {GKE} {POOL}", "--pod='' names no chips"),
        (f"gke llama2_7b --chips v5p:4x4x5 {GKE} {POOL}", "there is no such slice"),
        (f"gke llama2_7b --chips v5p:4x4x4 {GKE} {POOL} --mesh.fsdp 3", "over 64 devices"),
        (f"gke llama2_7b --chips h100:64*2 {GKE} {POOL}", "slices are of TPUs"),
        (f"gke llama2_7b --chips h100:8 {GKE} --run-dir /mnt/run/A", "--name='A' must be"),
        (f"gke mine.py --chips v5p:4x4x4 {GKE} {POOL}", "RECIPE='mine.py' must lie below"),
        (
            f"ray llama2_7b --workers 2 --gpus-per-worker 8 {POOL} --init-from runs/a@5",
            "--init-from='runs/a@5' must begin with /",
        ),
        (f"ray llama2_7b --workers 2 --gpus-per-worker 8 {DATA}", "--run-dir='runs/llama2_7b'"),
        (
            f"tpu-vm llama2_7b --chips tpu7x:4x4x4 --zone z --install i {POOL}",
            "there are no Cloud TPU VMs with it",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(command, complaint, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text((recipe_folder() / "llama2_7b.py").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        main([*shlex.split(command), "--dry-run"])


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("slurm llama2_7b --nodes 2 --tasks-per-node 3", "must be 1, for one process a node"),
        ("slurm llama2_7b --nodes 0", "--nodes=0 must be positive"),
        ("ray llama2_7b --workers 2", "give one of them"),
        ("slurm llama2_7b --nodes 1 --max-restarts -1", "--max-restarts=-1 must be zero or more"),
        ("slurm llama2_7b --nodes 1 --partition 'a b'", "--partition='a b' must be one word"),
        ("ray llama2_7b --workers 1 --gpus-per-worker 1 --stop-seconds 0", "must be positive"),
        ("ray llama2_7b --workers 1 --gpus-per-worker 1 --max-restarts -2", "zero or more"),
        ("supervise run --max-restarts -1 -- true", "--max-restarts=-1 must be zero or more"),
        ("supervise run --stop-seconds -1 -- true", "--stop-seconds=-1.0 must be positive"),
        (f"gke llama2_7b --pod v5p:4x4x4 {GKE} --queue A_B", "--queue='A_B' is no name of Kub"),
        (f"gke llama2_7b --pod v5p:4x4x4 {GKE} --image 'a b'", "--image='a b' must be one word"),
        (f"gke llama2_7b --pod v5p:4x4x4 {GKE} --stop-seconds -5", "must be positive"),
    ],
)
def test_a_flag_that_breaks_a_rule_is_refused(command, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(command))
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2 and complaint in said


STREAM = "--stream fineweb --input gs://raw/fineweb --tokenizer-file /mnt/run/llama2.model"


@pytest.mark.parametrize(
    "launch",
    [
        "gke llama2_7b --pod v5p:4x4x4 --image i --claim shared",
        "tpu-vm llama2_7b --pod v5p:4x4x4 --zone z --install i --disk h:/share",
        "ray llama2_7b --workers 8 --gpus-per-worker 8",
    ],
)
def test_a_run_may_stream_raw_documents_that_all_hosts_see(launch, capsys):
    text = dry_run(capsys, f"{launch} --run-dir /mnt/run/pool {STREAM}")
    assert "--stream" in text and "gs://raw/fineweb" in text
    for here in ("--input fineweb", "--tokenizer-file llama2.model"):
        with pytest.raises(ValueError, match=r"stream\.\S+path='\S+' must"):
            main([*shlex.split(f"{launch} --run-dir /mnt/run/pool {STREAM} {here}"), "--dry-run"])


def test_a_string_that_looks_like_something_else_stays_a_string_in_a_jobset(capsys):
    flags = "--name no --namespace on --queue 0123 --claim 123 --service-account 1e3 --priority yes"
    launch = f"gke llama2_7b --pod v5p:4x4x4 --image 1:2 {POOL}"
    jobset = yaml.safe_load(dry_run(capsys, f"{launch} {flags}"))
    assert (jobset["metadata"]["name"], jobset["metadata"]["namespace"]) == ("no", "on")
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "0123"}
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("1e3", "yes")
    assert pod["containers"][0]["image"] == "1:2"
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "123"


def test_what_is_printed_for_a_shell_is_read_back_by_it(capsys):
    odd = "/mnt/run/it's $HOME"
    text = dry_run(capsys, f'local llama2_7b --processes 1 --run-dir "{odd}" {DATA}')
    first = shlex.split(text.replace("\\\n", "").partition("&\n")[0], comments=True)
    assert first[first.index(">>") + 1] == f"{odd}/logs/process-0.log" and odd in first
    text = dry_run(
        capsys, f'ray llama2_7b --workers 1 --gpus-per-worker 1 --run-dir "{odd}" {DATA}'
    )
    told = json.loads(shlex.split(text.replace("\\\n", ""))[-1])
    assert told["logs"] == f"{odd}/logs"


def test_an_unknown_platform_is_answered_with_what_was_meant():
    with pytest.raises(ValueError, match="Did you mean slurm"):
        main(["slrum", "demo"])


def test_a_line_without_its_value_is_left_out_with_its_comment_and_its_key(tmp_path, monkeypatch):
    text = "labels:\n  # Of the queue.\n  queue: $queue\nkept:\n  - $name\n# $name\nlast: 1\n"
    (tmp_path / "t.yaml").write_text(text)
    monkeypatch.setattr("llama_jax.cli.launch.templates._FOLDERS", (tmp_path,))
    assert render("t.yaml", {"queue": "", "name": "x"}) == "kept:\n  - x\n# x\nlast: 1\n"
    with pytest.raises(AssertionError):
        render("t.yaml", {"name": "x"})


def test_a_dry_run_for_ray_is_json_for_its_driver(capsys):
    from llama_jax.cli.launch.ray_driver import Spec

    text = dry_run(capsys, LAUNCHES["ray.txt"])
    module, told = shlex.split(text.replace("\\\n", ""))[2:]
    assert module == "llama_jax.cli.launch.ray_driver"
    assert Spec(**json.loads(told)).workers == 8


def job(config, pod: str = ""):
    names = {"platform": "gke", "name": "run", "places": {}, "train_argv": (), "argv": ()}
    return Job(config=config, run_dir=Path("/mnt/run"), pod=pod, **names)


@pytest.mark.parametrize("code", [0, 2])
@pytest.mark.parametrize(
    ("chips", "count", "topology"),
    [
        ("v5p:4x4x4*2", 128, ["v5p:4x4x4", "--slices", "2"]),
        ("h100:64", 64, ["h100:64", "--slices", "1"]),
    ],
)
def test_a_run_that_the_doctor_refuses_is_not_launched(code, chips, count, topology, monkeypatch):
    asked = []

    def answer(command, **_):
        asked.append(command)
        recipe = load_recipe(command[command.index("doctor") + 1])
        assert recipe.train.num_steps == 7  # the run with its overrides, not the recipe as it is
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("subprocess.run", answer)
    refused = pytest.raises(ValueError, match="the doctor says")
    with refused if code else contextlib.nullcontext():
        ask_doctor(job(tiny_config(train__num_steps=7)), chips, num_chips=count)
    assert asked[0][-4:] == ["--topology", *topology]


@pytest.mark.parametrize(
    ("chips", "why"),
    [
        ("v5p:4x4x4", "libtpu is not installed here"),
        ("h100:64", "jax_cuda12_plugin is not installed here"),
        ("a100:64", "a100 is no GPU that it knows"),
        ("", "--chips names none"),
    ],
)
def test_a_launch_without_the_doctor_says_why_it_was_not_asked(chips, why, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ask_doctor(job(tiny_config()), chips, num_chips=64)
    assert f"the doctor was not asked, for {why}" in capsys.readouterr().err


def test_chips_that_the_platform_is_not_asked_for_are_refused():
    with pytest.raises(ValueError, match="--chips=h100:64 are 64, and 32 are asked for"):
        ask_doctor(job(tiny_config(), pod="h100:8"), "h100:64", num_chips=32)
