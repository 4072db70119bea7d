"""One attempt of a run on a Ray cluster: starts an actor a host, and ends as their processes do."""

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from llama_jax.cli.launch.restarts import (
    DONE,
    PREEMPTED,
    REFUSED,
    describe_code,
    find_cause,
)
from llama_jax.cli.launch.state import last_lines
from llama_jax.train.processes import hold_port

_POLL_SECONDS = 0.2
_SAY_SECONDS = 60.0
_LINES_SHOWN = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What to run, and where.

    Attributes:
        address: Of the cluster.
        workers: Processes.
        bundle: Resources of each.
        strategy: How Ray spreads them.
        environment: Of each, beside what joins them.
        logs: Folder of their logs, which all nodes see.
        stop_seconds: How long they may take to save.
        argv: Of `llama-jax train`.
    """

    address: str
    workers: int
    bundle: dict[str, float]
    strategy: str
    environment: dict[str, str]
    logs: str
    stop_seconds: float
    argv: list[str]


class Host:
    """Runs one process of a run on the node where Ray put it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._held: socket.socket | None = None

    def address(self) -> str:
        """A free port of this node, held as long as the actor lives."""
        ray: Any = importlib.import_module("ray")
        self._held = hold_port()
        return f"{ray.util.get_node_ip_address()}:{self._held.getsockname()[1]}"

    def start(self, argv: list[str], environment: dict[str, str], log: str) -> None:
        """Starts the process."""
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "llama_jax.cli.main", "train", *argv]
        with Path(log).open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 (our own command)
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_end_with_actor,
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def send(self, number: int) -> None:
        """Sends it a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def run(spec: Spec) -> int:
    """Starts all processes and waits; one that fails takes the others down.

    Returns:
        0 where all are done, 75 where they saved and stopped, 2 where one refused, else 1.
    """
    ray: Any = importlib.import_module("ray")
    stopping: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        stopping.append(number)

    ray.init(address=spec.address, log_to_driver=False)
    # After Ray, which has a handler of its own.
    signal.signal(signal.SIGTERM, note)
    group = ray.util.placement_group([spec.bundle] * spec.workers, strategy=spec.strategy)
    if not _wait_for_room(spec, group, stopping):
        ray.shutdown()
        return PREEMPTED  # nothing was begun
    hosts = _start(spec, group)
    codes = _watch(spec, hosts, stopping)
    _send(hosts, signal.SIGKILL)
    ray.shutdown()
    return _conclude(spec, codes)


def _wait_for_room(spec: Spec, group: Any, stopping: list[int]) -> bool:
    """Waits until the cluster has room for all; says for what, and ends early where it is asked."""
    ray: Any = importlib.import_module("ray")
    ready, said = group.ready(), time.monotonic()
    while not stopping:
        if ray.wait([ready], timeout=1)[0]:
            ray.get(ready)  # fails where the group cannot be
            return True
        if time.monotonic() >= said:
            said = time.monotonic() + _SAY_SECONDS
            free = {name: ray.available_resources().get(name, 0) for name in spec.bundle}
            print(
                f"ray: waits for {spec.workers} times {spec.bundle} ({spec.strategy}); free in the "
                f"cluster: {free}",
                file=sys.stderr,
                flush=True,
            )
    return False


def _start(spec: Spec, group: Any) -> list[Any]:
    """An actor a bundle, each with its process started."""
    ray: Any = importlib.import_module("ray")
    placed_in: Any = importlib.import_module("ray.util.scheduling_strategies")
    remote = ray.remote(Host)
    hosts = [
        remote.options(
            num_cpus=spec.bundle.get("CPU", 0),
            num_gpus=spec.bundle.get("GPU", 0),
            resources={k: v for k, v in spec.bundle.items() if k not in ("CPU", "GPU")},
            scheduling_strategy=placed_in.PlacementGroupSchedulingStrategy(group, index),
        ).remote()
        for index in range(spec.workers)
    ]
    coordinator, logs = ray.get(hosts[0].address.remote()), logs_of(spec.logs, spec.workers)
    ray.get(
        [
            host.start.remote(spec.argv, _environment(spec, index, coordinator), logs[index])
            for index, host in enumerate(hosts)
        ]
    )
    return hosts


def _watch(spec: Spec, hosts: list[Any], stopping: list[int]) -> dict[int, int]:
    """Exit codes of the processes that ended by themselves, in the order in which that was seen."""
    ray: Any = importlib.import_module("ray")
    codes: dict[int, int] = {}
    passed_on, deadline = False, float("inf")
    while len(codes) < len(hosts) and time.monotonic() < deadline:
        for index, host in enumerate(hosts):
            try:
                code = None if index in codes else ray.get(host.poll.remote())
            except ray.exceptions.RayActorError:
                code = -signal.SIGKILL  # its node is gone
            if code is not None:
                codes[index] = code
                patient = code in (DONE, PREEMPTED) or stopping
                allowed = spec.stop_seconds if patient else 0.0
                deadline = min(deadline, time.monotonic() + allowed)
        if stopping and not passed_on:
            passed_on = True
            deadline = min(deadline, time.monotonic() + spec.stop_seconds)
            _send(hosts, signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
    return codes


def _send(hosts: list[Any], number: int) -> None:
    """Sends a signal to the processes of all hosts that are still there."""
    ray: Any = importlib.import_module("ray")
    for sent in [host.send.remote(int(number)) for host in hosts]:
        with contextlib.suppress(ray.exceptions.RayActorError):
            ray.get(sent)


def _conclude(spec: Spec, codes: dict[int, int]) -> int:
    """The driver's exit code; says what was wrong, with the log of the process that caused it."""
    ended = set(codes.values())
    if len(codes) == spec.workers and ended <= {DONE, PREEMPTED}:
        return max(ended)
    index = find_cause(codes)
    log = logs_of(spec.logs, spec.workers)[index]
    how = describe_code(codes[index]) if index in codes else "did not end"
    print(f"ray: worker {index} {how}; exit codes {codes}. Last lines of {log}:", file=sys.stderr)
    for line in last_lines(Path(log), _LINES_SHOWN):
        print(f"  {line}", file=sys.stderr)
    return REFUSED if REFUSED in ended else 1


def _environment(spec: Spec, index: int, coordinator: str) -> dict[str, str]:
    return spec.environment | {
        "LLAMA_JAX_COORDINATOR": coordinator,
        "LLAMA_JAX_NUM_PROCESSES": str(spec.workers),
        "LLAMA_JAX_PROCESS_ID": str(index),
    }


def logs_of(folder: str, workers: int) -> list[str]:
    """Where the processes of a run write, in their order."""
    return [f"{folder}/worker-{index}.log" for index in range(workers)]


def _end_with_actor() -> None:
    """Has Linux stop a process whose actor is gone; it saves, and lets go of its devices."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run(Spec(**json.loads(sys.argv[1]))))
