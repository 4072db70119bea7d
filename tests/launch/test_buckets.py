"""Buckets of a run are tried before it is launched, on an emulator of Google's store."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import yaml

from llama_jax.cli.launch import main
from llama_jax.cli.launch.buckets import check_buckets, check_data_of, check_region
from llama_jax.cli.launch.job import Job
from llama_jax.cli.launch.preflight import check_data
from llama_jax.cli.launch.state import LaunchState
from llama_jax.remote.objects import Objects, Url
from tests.remote.stores import STORES, open_store

GKE = "gke llama2_7b --pod v5p:4x4x4 --image registry/llama-jax:0.1.0 --no-doctor"


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    with open_store(request.param, tmp_path) as store:
        yield store


def job(config, run_dir) -> Job:
    places = {"--run-dir": str(run_dir), "data.directory": config.data.directory}
    names = {"platform": "gke", "name": "run", "pod": "", "train_argv": (), "argv": ()}
    return Job(config=config, run_dir=run_dir, places=places, **names)


def upload(folder: Path, url: Url) -> None:
    files = (path for path in folder.rglob("*") if path.is_file())
    names = ((str(path.relative_to(folder)), path.read_bytes()) for path in files)
    Objects(url).write_all(names)


def with_data(config, url: Url):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, directory=str(url)))


def test_a_bucket_is_written_read_and_left_as_it_was(store, config, capsys):
    check_buckets(job(config, store.url))
    assert store.gateway.requests >= 3 and Objects(store.url).names() == []
    assert f"{store.url} can be written" in capsys.readouterr().err


def test_a_bucket_that_refuses_a_write_is_refused_by_name(store, config, monkeypatch):
    monkeypatch.setattr("llama_jax.remote.objects._RETRIES", {"max_retries": 1})
    store.gateway.fails = lambda number: True
    with pytest.raises(ValueError, match=f"--run-dir={store.url} cannot be written"):
        check_buckets(job(config, store.url))


def test_a_dataset_in_a_bucket_is_looked_at_before_a_launch(store, config, corpus):
    with pytest.raises(ValueError, match="holds no source of token shards"):
        check_data_of(job(with_data(config, store.url), store.url))
    upload(corpus, store.url)
    there = job(with_data(config, store.url), store.url)
    [said] = check_data(there)
    assert "all shards are there; 1,536 tokens of training are 0." in said
    [shard, *_] = (name for name in Objects(store.url).names() if ".array_record-" in name)
    Objects(store.url).delete([shard])
    with pytest.raises(ValueError, match=f"shard {shard} is missing"):
        check_data(there)


def test_status_looks_into_the_bucket(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state = LaunchState(platform="gke", name="run", run_dir=str(store.url), argv=[])
    state.phase = "submitted"
    state.save(tmp_path / "runs/run")
    notes = [{"start": True, "time": 1.0, "step": 0, "seconds": {}}]
    notes += [{"time": 2.0, "step": 12, "seconds": {"steps": 1.0}}]
    files = {
        "config.json": "{}",
        "metrics.jsonl": '{"step": 9}\n{"step": 12}\n',
        "goodput.jsonl": "".join(json.dumps(note) + "\n" for note in notes),
        "checkpoints/5/manifest.json": "{}",
        "checkpoints/10/manifest.json": "{}",
        "checkpoints/12/meta.json": "{}",  # not complete
    }
    Objects(store.url).write_all([(name, text.encode()) for name, text in files.items()])
    assert main(["status", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["checkpoint"], found["goodput"]) == (12, 10, 1.0)
    assert found["seconds_silent"] > 1e6


@pytest.mark.parametrize(
    ("location", "region"),
    [("US-EAST5", "us-east5"), ("US", "us-east5"), ("EU", "europe-west4"), ("ASIA", "asia-east1")],
)
def test_a_bucket_in_the_region_of_the_chips_is_taken(tool, location, region, capsys):
    calls = tool("gcloud", f"echo {location}")
    check_region("--run-dir", Url("gs://ours/run/deep"), region)
    assert "describe gs://ours --format" in calls.read_text()
    assert not capsys.readouterr().err


def test_a_bucket_elsewhere_is_refused(tool):
    tool("gcloud", "echo US-EAST1")
    with pytest.raises(ValueError, match="the bucket lies in us-east1, the chips in us-east5"):
        check_region("data.directory", Url("gs://ours/tokens"), "us-east5")


@pytest.mark.parametrize(
    ("url", "region", "gcloud"),
    [
        ("gs://ours/run", "", "echo US"),
        ("s3://ours/run", "us-east5", "echo US"),
        ("gs://ours/run", "us-east5", "echo NAM4"),
        ("gs://ours/run", "us-east5", "exit 1"),
    ],
)
def test_where_a_region_cannot_be_known_that_is_said(tool, url, region, gcloud, capsys):
    tool("gcloud", gcloud)
    check_region("--run-dir", Url(url), region)
    assert url in capsys.readouterr().err


def test_a_run_in_buckets_needs_no_disk_and_is_tried_before_kubernetes_is_told(
    tool, tmp_path, monkeypatch, corpus
):
    monkeypatch.chdir(tmp_path)
    calls = tool("kubectl", "case $2 in nodes) echo us-east5;; *) echo yes;; esac")
    tool("gcloud", "echo US")
    with open_store("gs", tmp_path) as store:
        upload(corpus, store.url / "tokens")
        places = f"--run-dir {store.url}/pool --data.directory {store.url}/tokens"
        assert main([*shlex.split(f"{GKE} {places}")]) == 0
    jobset = yaml.safe_load((tmp_path / "runs/pool/jobset.yaml").read_text())
    [replicated] = jobset["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert "volumes" not in pod and "volumeMounts" not in container
    assert f"{store.url}/pool" in container["args"]
    assert "create --dry-run=server" in calls.read_text()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--run-dir /mnt/run/a --data.directory gs://ours/tokens", "--claim='' names no disk"),
        ("--run-dir gs://ours/a --data.directory tokens", "data.directory='tokens' must lie"),
        ("--run-dir gs://ours/a", "data.directory='' names no token shards"),
    ],
)
def test_a_run_half_in_buckets_says_what_its_other_half_lacks(flags, complaint):
    with pytest.raises(ValueError, match=complaint):
        main([*shlex.split(f"{GKE} {flags}"), "--dry-run"])
