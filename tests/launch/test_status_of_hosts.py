"""`launch status` names the hosts that are silent or slow, as the run itself keeps them."""

import json
import os

from llama_jax.cli.launch.state import LaunchState
from llama_jax.cli.main import main
from llama_jax.observe.host_table import HostRow, HostTable, write_hosts


def test_who_is_silent_and_who_is_slow_is_named(tmp_path, capsys):
    run = tmp_path / "run"
    state = LaunchState(platform="slurm", name="run", run_dir=str(run), argv=[])
    state.host, state.pid = "elsewhere", os.getpid()  # its launcher cannot be seen from here
    state.save(run)
    rows = [
        HostRow(
            index=index, host=f"host-{index}", pid=12, step=7, doing="update 8", silent_seconds=s
        )
        for index, s in enumerate((0.0, 90.0))
    ]
    slow = "process 0 works 2 s"
    write_hosts(run, HostTable(time=0.0, silent_after_seconds=40.0, slow=slow, rows=rows))
    assert main(["launch", "status", str(run)]) == 0
    told = capsys.readouterr().out
    assert "silent: process 1 (pid 12 on host-1) for 90 s, in update 8" in told
    assert "slow: process 0 works 2 s" in told
    assert main(["launch", "status", str(run), "--json"]) == 0
    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert [row["host"] for row in hosts["rows"]] == ["host-0", "host-1"]

    state.phase = "done"
    state.save(run)
    assert main(["launch", "status", str(run)]) == 0
    assert "silent:" not in capsys.readouterr().out
