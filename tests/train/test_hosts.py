"""Which process the others wait for."""

import time
from unittest import mock

from llama_jax.observe.goodput import WorkClock
from llama_jax.train.hosts import Hosts, HostTimes, Pace, find_slow
from llama_jax.train.loop import _Run
from tests.train.tiny_run import tiny_config


def times(busy, *, data=0.0, step=10):
    return HostTimes(step=step, step_seconds=1.0, data_seconds=data, busy_seconds=busy)


def test_the_host_that_waits_least_for_the_devices_is_the_slow_one():
    late = times(0.7, data=0.6, step=8)  # has not told of the last interval yet
    slow = find_slow({0: times(0.1), 1: late, 2: times(0.12), 3: times(0.1)}, 2)
    assert slow is not None and slow.index == 1
    assert "0.7 s an update" in slow.why and "0.6 s of them for data" in slow.why
    pair = find_slow({0: times(0.1), 1: times(0.7)}, 2)
    assert pair is not None and pair.index == 1


def test_hosts_that_are_alike_or_alone_or_of_another_interval_are_not_named():
    assert find_slow({}, 2) is None and find_slow({0: times(0.9)}, 2) is None
    assert find_slow({0: times(0.3), 1: times(0.4), 2: times(0.35)}, 2) is None
    assert find_slow({0: times(0.1, step=20), 1: times(0.9, step=17)}, 2) is None


def test_all_meet_at_a_place_of_its_own_each_time(monkeypatch):
    class Client:
        met: list = []

        def wait_at_barrier(self, name, within_ms):
            self.met.append((name, within_ms))

    hosts = Hosts()
    hosts.meet(5.0)  # alone: there is nobody to wait for
    monkeypatch.setattr(hosts, "_client", client := Client())
    hosts.meet(5.0)
    hosts.meet(0.0)
    (first, seconds), (second, for_ever) = client.met
    assert first != second and (seconds, for_ever) == (5_000, 86_400_000)


def test_each_interval_is_measured_from_the_one_before():
    clock = WorkClock()
    pace = Pace(Hosts(), clock)
    clock.data_seconds, clock.device_seconds = 2.0, 6.0
    here, slow = pace.look(4, updates=4, seconds=12.0)
    assert (here.step_seconds, here.data_seconds, here.busy_seconds) == (3.0, 0.5, 1.5)
    assert slow is None
    clock.data_seconds, clock.device_seconds = 2.0, 9.0
    here, _ = pace.look(6, updates=2, seconds=3.0)
    assert (here.step_seconds, here.data_seconds, here.busy_seconds) == (1.5, 0.0, 0.0)


def test_a_step_that_a_cpu_makes_at_once_is_no_work_of_the_host():
    def step(state, batch, learning_rate):
        time.sleep(0.05)
        return state, {}

    run = object.__new__(_Run)
    run.config, run.clock, run.on_cpu = tiny_config(), WorkClock(), True
    run.learning_rate, run.seconds_to_first_step = lambda done: 0.1, 1.0
    run.parts = mock.Mock(batches=iter(range(4)))
    run.parts.program.step_after.return_value = step
    run.recompute, run.spikes = mock.Mock(), mock.Mock()
    run.recompute.due.return_value, run.spikes.ceilings.return_value = False, ()
    run.watchdog, run.journal, run.ledger = mock.Mock(), mock.Mock(), mock.Mock(idle=False)
    for done in range(4):
        run._update(done, mock.Mock())
    run.clock.lap("steps")
    here, _ = Pace(Hosts(), run.clock).look(4, updates=4, seconds=run.clock.training)
    assert here.busy_seconds <= here.step_seconds - 0.05
