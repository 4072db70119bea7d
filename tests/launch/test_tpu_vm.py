"""The scripts for Cloud TPU VMs, run here: gcloud, sudo and systemctl are stand-ins."""

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_jax import __version__
from llama_jax.cli.launch import main
from llama_jax.cli.launch.state import LaunchState

LAUNCH = (
    "tpu-vm llama2_7b --pod v5p:4x4x4 --zone us-east5-a --disk 10.0.0.2:/share --no-doctor "
    "--install 'touch installed' --max-restarts 3 --run-dir /mnt/run/pool "
    """--data.directory "/mnt/run/it's 5% $HOME" """
)
# One host, whose commands run in the folder `host`; chips are there once they were asked for.
GCLOUD = """
case "$*" in
  *accelerator-types*) ;;
  *describe*) cat "$ROOT/state" ;;
  *delete*) rm "$ROOT/state" ;;
  *create*) echo ACTIVE > "$ROOT/state" ;;
  *ssh*)
    for word in "$@"; do
      case "$word" in --command=*) cd "$ROOT/host" && bash -c "${word#--command=}" || exit 1 ;; esac
    done ;;
esac"""
# What root writes goes below the folder `root`.
SUDO = """
case "$1" in
  tee) mkdir -p "$ROOT/root$(dirname "$2")" && cat > "$ROOT/root$2" ;;
  *) "$@" ;;
esac"""
UNIT = "etc/systemd/system/llama-jax-pool.service"


@pytest.fixture
def host(tool, tmp_path, monkeypatch):
    """A host of a queued resource, with llama-jax on it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("root", "host", "home"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("ROOT", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tool("gcloud", GCLOUD)
    tool("sudo", SUDO)
    tool("sleep", "")
    tool(
        "systemctl", 'case "$1" in cat) test -e "$ROOT/root/etc/systemd/system/$2.service" ;; esac'
    )
    tool("llama-jax", f"echo llama-jax {__version__}")
    return tmp_path


def services(host: Path) -> list[str]:
    """What systemctl was asked for, in order."""
    calls = (host / "calls").read_text().splitlines()
    verbs = ("enable", "disable", "start", "reset-failed", "daemon-reload")
    return [call for call in calls if call.startswith(verbs)]


def unit_of(host: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser()
    unit.optionxform = str
    unit.read(host / "root" / UNIT)
    return unit


def test_chips_are_asked_for_and_a_service_is_made_that_a_reboot_starts(host):
    assert main(shlex.split(LAUNCH)) == 0
    calls = (host / "calls").read_text()
    assert "queued-resources create pool --node-id=pool --accelerator-type=v5p-128" in calls
    assert (host / "host/installed").exists()
    assert services(host) == [
        "daemon-reload",
        "enable --quiet llama-jax-pool",
        "start llama-jax-pool",
    ]
    unit = unit_of(host)
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert unit["Unit"]["StartLimitIntervalSec"] == "infinity"
    assert unit["Unit"]["StartLimitBurst"] == "4"  # the first start and three more
    service = unit["Service"]
    assert service["RestartPreventExitStatus"] == "2" and service["TimeoutStopSec"] == "600"
    assert service["Environment"] == f'"PATH={host}/home/.local/bin:{os.environ["PATH"]}"'
    mount = "mkdir -p /mnt/run && (mountpoint -q /mnt/run || mount 10.0.0.2:/share /mnt/run)"
    assert service["ExecStartPre"] == f'+/bin/sh -c "{mount}"'
    assert LaunchState.load(host / "runs/pool").phase == "submitted"


def test_the_service_hands_on_every_flag_as_it_was_given(host):
    assert main(shlex.split(LAUNCH)) == 0
    start = shlex.split(unit_of(host)["Service"]["ExecStart"])
    (host / "llama-jax").write_text('#!/bin/sh\nprintf "%s\\n" "$LLAMA_JAX_CLUSTER" "$@"')
    done = subprocess.run(start, capture_output=True, text=True, check=True)
    data = ["--data.directory", "/mnt/run/it's 5% $HOME"]
    flags = ["--pod", "v5p:4x4x4", "--run-dir", "/mnt/run/pool", *data]
    assert done.stdout.splitlines() == ["auto", "train", "llama2_7b", *flags]


def test_without_a_restart_a_host_starts_once(host):
    assert main([*shlex.split(LAUNCH), "--max-restarts", "0"]) == 0
    assert unit_of(host)["Unit"]["StartLimitBurst"] == "1"


def test_launched_again_what_runs_is_stopped_first_and_chips_that_are_lost_asked_for_anew(host):
    assert main(shlex.split(LAUNCH)) == 0
    (host / "state").write_text("SUSPENDED\n")
    (host / "calls").unlink()
    assert main(["resume", "pool"]) == 0
    calls = (host / "calls").read_text()
    assert calls.index("delete pool --force") < calls.index("create pool")
    stopped = ["disable --now llama-jax-pool", "reset-failed llama-jax-pool"]
    assert services(host)[:2] == stopped and services(host)[-1] == "start llama-jax-pool"
    (host / "calls").unlink()
    assert main(["stop", "pool"]) == 0
    assert services(host) == stopped


def test_a_host_with_another_version_is_refused_before_anything_starts(host, tool):
    tool("llama-jax", "echo llama-jax 9.9.9")
    assert main(shlex.split(LAUNCH)) == 1
    assert not (host / "root" / UNIT).exists()


def test_systemd_itself_takes_the_unit(host):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    assert main(shlex.split(LAUNCH)) == 0
    done = subprocess.run(
        ["systemd-analyze", "verify", str(host / "root" / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "llama-jax-pool" not in done.stderr, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--disk 'a b;c'", "must be words of mount"),
        ("--max-restarts -1", "--max-restarts=-1 must be zero or more"),
        ("--stop-seconds 0", "--stop-seconds=0 must be positive"),
        ("--mount 'a b'", "must be a folder from /"),
    ],
)
def test_a_flag_that_no_script_can_carry_is_refused(flags, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(LAUNCH), *shlex.split(flags), "--dry-run"])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2 and complaint in said
