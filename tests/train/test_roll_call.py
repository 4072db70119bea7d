"""The first process keeps who of a run lives, what each one does, and who is slow."""

from llama_jax.observe.host_table import read_hosts
from llama_jax.train.hosts import Hosts, SlowHost
from llama_jax.train.roll_call import RollCall


def test_who_is_silent_and_who_is_slow_is_told(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    alive = {
        0: {"beat": 0, "host": "host-0", "pid": 12, "step": 7, "doing": "update 8"},
        1: {"beat": 3, "host": "host-1", "pid": 12, "step": 7, "doing": "update 8"},
    }
    pace = {1: {"step": 5, "step_seconds": 2.0, "data_seconds": 0.5, "busy_seconds": 1.5}}
    hosts = Hosts()
    monkeypatch.setattr(hosts, "heard", lambda topic: {"alive": alive, "pace": pace}[topic])
    roll_call = RollCall(tmp_path, hosts)
    assert read_hosts(tmp_path) is None
    for _ in range(6):
        alive[0]["beat"] += 1
        roll_call.beat(7, "update 8", every_seconds=10.0)
    table = read_hosts(tmp_path)
    assert table is not None
    assert [row.silent_seconds for row in table.rows] == [0, 50]
    assert table.news() == ["silent: process 1 (pid 12 on host-1) for 50 s, in update 8"]
    assert (table.rows[0].step_seconds, table.rows[1].data_seconds) == (None, 0.5)

    hosts.slow = SlowHost(1, "process 1 works 2 s")
    alive[1]["beat"] += 1
    roll_call.beat(7, "update 8", every_seconds=10.0)
    table = read_hosts(tmp_path)
    assert table is not None and table.news() == ["slow: process 1 works 2 s"]

    (tmp_path / "hosts.json").write_text("{")
    assert read_hosts(tmp_path) is None
