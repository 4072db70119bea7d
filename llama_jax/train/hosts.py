"""What the processes of a run tell one another, and which of them is slow or silent.

It travels through JAX's coordination service, a few bytes a process, and never through the
devices: no process waits for another to tell, and what hangs on the devices can still be told.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping
from typing import Any

import jax

from llama_jax.observe.goodput import WorkClock

# A host stands out where it works alone for so much longer than most, as a share of an update.
_SLOWER = 0.2
_A_DAY_SECONDS = 86_400.0


@dataclasses.dataclass(frozen=True, slots=True)
class HostTimes:
    """Means over the updates of an interval, in one process.

    Attributes:
        step: Last update of the interval.
        step_seconds: Of an update.
        data_seconds: Of them, waiting for the loader, whether the devices waited too or not.
        busy_seconds: Of them, all but waiting for the devices. Who is slow makes the others wait
            there, and waits least itself.
    """

    step: int
    step_seconds: float
    data_seconds: float
    busy_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class SlowHost:
    """A process that keeps the others waiting.

    Attributes:
        index: Of the process.
        why: For people.
    """

    index: int
    why: str


class Hosts:
    """The processes of this run; alone, a process hears nothing.

    Attributes:
        slow: Which one the others wait for, as the first process saw it last.
    """

    def __init__(self) -> None:
        self.slow: SlowHost | None = None
        self._client: Any = None
        self._meetings = 0
        if jax.process_count() > 1:
            # The service is public, and its store is not (jax 0.10): Orbax reads it here too.
            from jax._src import distributed

            self._client = distributed.global_state.client

    def meet(self, within_seconds: float) -> None:
        """Waits until all processes have come as far; to be called equally often by all.

        What the devices do together has deadlines that nothing sets: on CPUs, processes that come
        to it 30 s apart fail. Source: github.com/jax-ml/jax/issues/40831.

        Args:
            within_seconds: After which the others are given up; 0 waits for a day.
        """
        if self._client is not None:
            self._meetings += 1
            within_ms = int(1000 * (within_seconds or _A_DAY_SECONDS))
            self._client.wait_at_barrier(f"llama_jax/meeting/{self._meetings}", within_ms)

    def gather(self, topic: str, value: Any, within_seconds: float) -> dict[int, Any]:
        """What every process gives, by its number; to be called equally often by all.

        Args:
            topic: Of its own; `heard` knows nothing of it before all have given.
            value: Of this process, as JSON can hold it.
            within_seconds: As of `meet`.
        """
        if self._client is None:
            return {0: value}
        self.tell(topic, value)
        self.meet(within_seconds)
        given = self.heard(topic)
        self.meet(within_seconds)  # none gives anew before all have read
        return given

    def tell(self, topic: str, value: Any) -> None:
        """Tells the others, in place of what this process told on this topic before."""
        if self._client is not None:
            key = f"llama_jax/{topic}/{jax.process_index()}"
            self._client.key_value_set(key, json.dumps(value), allow_overwrite=True)

    def heard(self, topic: str) -> dict[int, Any]:
        """What each process told last, this one included."""
        if self._client is None:
            return {}
        told = self._client.key_value_dir_get(f"llama_jax/{topic}/")
        return {int(key.rsplit("/", 1)[1]): json.loads(value) for key, value in told}


def find_slow(times: Mapping[int, HostTimes], interval: int) -> SlowHost | None:
    """The process that keeps the others waiting most; None where none stands out.

    Args:
        times: Of processes, by number.
        interval: Updates; a process that is behind by more is not compared. By one it may be, for
            nobody waits until all have told.
    """
    latest = max((host.step for host in times.values()), default=0)
    current = {index: host for index, host in times.items() if host.step >= latest - interval}
    if len(current) < 2:
        return None
    index, host = max(current.items(), key=lambda item: item[1].busy_seconds)
    usual = statistics.median_low(other.busy_seconds for other in current.values())
    if host.busy_seconds - usual <= _SLOWER * host.step_seconds:
        return None
    return SlowHost(
        index,
        f"process {index} works {host.busy_seconds:.3g} s an update before it waits for the "
        f"others, {host.data_seconds:.3g} s of them for data; the others {usual:.3g} s, of "
        f"{host.step_seconds:.3g} s in all",
    )


class Pace:
    """How fast this process is, and which one the others wait for.

    Args:
        hosts: All processes.
        clock: Of this one.
    """

    def __init__(self, hosts: Hosts, clock: WorkClock):
        self._hosts, self._clock = hosts, clock
        self._data = self._devices = 0.0

    def look(self, step: int, updates: int, seconds: float) -> tuple[HostTimes, SlowHost | None]:
        """Tells the others how an interval went here, and looks how it went there.

        Args:
            step: Last update of the interval.
            updates: In it.
            seconds: Of training in it.

        Returns:
            The times of this process, and which one is slow, as the first process sees it.
        """
        clock = self._clock
        data, devices = clock.data_seconds - self._data, clock.device_seconds - self._devices
        self._data, self._devices = clock.data_seconds, clock.device_seconds
        here = HostTimes(
            step=step,
            step_seconds=seconds / updates,
            data_seconds=data / updates,
            busy_seconds=max(seconds - devices, 0.0) / updates,
        )
        self._hosts.tell("pace", dataclasses.asdict(here))
        if jax.process_index():
            return here, None
        heard = self._hosts.heard("pace")
        times = {index: HostTimes(**told) for index, told in heard.items()}
        self._hosts.slow = find_slow(times, updates)
        return here, self._hosts.slow
