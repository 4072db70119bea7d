"""Joins the processes of one run, where the environment says that there are several.

Three environments are known, in this order:

- `LLAMA_JAX_COORDINATOR`, `LLAMA_JAX_NUM_PROCESSES` and `LLAMA_JAX_PROCESS_ID`, which
  `llama-jax launch` sets wherever the platform has no words of its own;
- Slurm's, inside `srun` of more than one task, and Kubernetes' for TPUs with more than one host;
- `LLAMA_JAX_CLUSTER=auto`, by which JAX asks the machine itself, as on Cloud TPU VMs, whose
  environment says nothing.

Source: `jax.distributed.initialize`, which reads the last two (JAX 0.10).
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from llama_jax.train.hosts import Hosts

from llama_jax.refusal import is_refusal

_OURS = ("LLAMA_JAX_COORDINATOR", "LLAMA_JAX_NUM_PROCESSES", "LLAMA_JAX_PROCESS_ID")
_PARTING_SECONDS = 15.0
_REFUSED = "refused"


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Makes this process one of several; does nothing, at no cost, where it is alone.

    To be called before JAX has devices.

    Raises:
        ValueError: If the environment contradicts itself.
    """
    arguments = find_arguments(environment)
    if arguments is not None:
        import jax

        jax.distributed.initialize(**arguments)


def find_arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None for a process that is alone.

    Raises:
        ValueError: If the environment contradicts itself.
    """
    if any(name in environment for name in _OURS):
        return _ours(environment)
    cluster = environment.get("LLAMA_JAX_CLUSTER", "")
    if cluster not in ("", "auto"):
        raise ValueError(f"LLAMA_JAX_CLUSTER={cluster} must be auto, or not be set.")
    if cluster or _tasks_of_slurm(environment) > 1 or _hosts_of_tpu(environment) > 1:
        return {}
    return None


def hold_port() -> socket.socket:
    """A free port of this machine that nobody else is given while the socket is open.

    It does not listen; the first process of a run may, at the same port, for gRPC shares its ports
    (SO_REUSEPORT). A port that was merely found free may be another's before a process begins.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("", 0))
    return holder


def meet() -> None:
    """Waits for the others, and has the devices of all speak to one another for the first time."""
    import jax
    from jax.experimental import multihost_utils

    from llama_jax.train.hosts import Hosts

    if jax.process_count() > 1:
        Hosts().meet(0)
        multihost_utils.sync_global_devices("llama_jax")


@contextlib.contextmanager
def failing_alone() -> Iterator[None]:
    """Ends this process at once if it fails among several, so that whoever started all can know.

    Python's own end would first meet the others at a barrier, and they may be waiting for this
    one in a step. The code is 2 where a request was wrong, else 1. What is wrong with a request is
    mostly so for all, and the end of the first process aborts the others: it gives them a moment
    to say so too.
    """
    import jax

    from llama_jax.train.guards import TrainingFailed
    from llama_jax.train.hosts import Hosts

    try:
        yield
    except Exception as failure:
        if jax.process_count() == 1:
            raise
        if refused := is_refusal(failure):
            print(f"llama-jax: error: {failure}", file=sys.stderr)
        elif isinstance(failure, TrainingFailed | OSError):
            print(f"llama-jax train: failed: {failure}", file=sys.stderr)
        else:
            traceback.print_exception(failure)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            hosts = Hosts()
            if refused:
                _refuse(hosts, str(failure))
            # What another one refused may have failed here for want of it.
            hear_a_refusal(hosts)
        _leave(2 if refused else 1)


def hear_a_refusal(hosts: "Hosts") -> None:
    """Ends this process too where another one refuses the request, which alone may know why."""
    import jax

    heard = hosts.heard(_REFUSED)
    if heard and jax.process_index() not in heard:
        index, why = min(heard.items())
        print(f"llama-jax: error: process {index} refuses: {why}", file=sys.stderr)
        _refuse(hosts, why)


def _refuse(hosts: "Hosts", why: str) -> NoReturn:
    """Ends this process when the others can know that the request is wrong.

    The end of the first one aborts the others: it waits until they have heard.
    """
    import jax

    end = time.monotonic() + _PARTING_SECONDS
    hosts.tell(_REFUSED, why)
    while is_first() and time.monotonic() < end:
        if len(hosts.heard(_REFUSED)) == jax.process_count():
            break
        time.sleep(0.05)
    _leave(2)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_first() -> bool:
    """Whether this process is the one that speaks for all."""
    import jax

    return jax.process_index() == 0


def _ours(environment: Mapping[str, str]) -> dict[str, Any] | None:
    if missing := [name for name in _OURS if not environment.get(name)]:
        raise ValueError(f"{missing[0]} is not set; {', '.join(_OURS)} are set together.")
    address, *numbers = (environment[name] for name in _OURS)
    for name, number in zip(_OURS[1:], numbers, strict=True):
        if not number.isdecimal():
            raise ValueError(f"{name}={number!r} must be a number.")
    count, index = map(int, numbers)
    if index >= count:
        raise ValueError(
            f"LLAMA_JAX_PROCESS_ID={index} must be below LLAMA_JAX_NUM_PROCESSES={count}: "
            "processes are counted from 0."
        )
    if count == 1:
        return None
    # Other clusters are not asked: what is set is complete, and a login node may look like one.
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def _tasks_of_slurm(environment: Mapping[str, str]) -> int:
    # An allocation has a job too; only a task that `srun` started has a number.
    in_step = {"SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST"} <= environment.keys()
    return int(environment.get("SLURM_NTASKS", "1")) if in_step else 1


def _hosts_of_tpu(environment: Mapping[str, str]) -> int:
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return len(hosts) * int(environment.get("MEGASCALE_NUM_SLICES") or 1)
