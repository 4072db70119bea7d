"""Looks at a launched run, follows it, stops it, starts it again."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from llama_jax.cli.launch.state import (
    LaunchState,
    Standing,
    find_launch,
    last_lines,
    process_state,
    standing_of,
)
from llama_jax.observe.goodput import NAME as GOODPUT
from llama_jax.observe.goodput import read_goodput
from llama_jax.observe.host_table import read_hosts
from llama_jax.observe.incidents import read_incidents
from llama_jax.remote.objects import StorageError, Url, is_remote

USAGE = """usage: llama-jax launch status NAME [--json]
       llama-jax launch logs NAME [--lines N]
       llama-jax launch stop NAME
       llama-jax launch resume NAME

NAME is the folder of a run, or its name below runs/. `status` says how far the run is, which of its
processes is stopped or gone, and what went wrong so far; `stop` has it save; `resume` launches it
again with the same flags.

example: llama-jax launch status demo"""

_INCIDENTS_SHOWN = 10
_LIVE = ("running", "waiting", "stopping")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Flags of the verbs."""

    lines: int = 20
    """Last lines of each log to show."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(verb: str, argv: list[str]) -> int:
    """Runs `llama-jax launch status|logs|stop|resume`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    prog = f"llama-jax launch {verb} {argv[0]}"
    options = tyro.cli(_Options, prog=prog, description=USAGE, args=argv[1:])
    folder = find_launch(argv[0])
    state = LaunchState.load(folder)
    if verb == "resume":
        return _resume(state)
    if verb == "status":
        code = _status(state, folder, as_json=options.json)
        return code if options.json or verb not in state.commands else _ask(state, verb)
    if verb in state.commands:
        return _ask(state, verb)
    return _logs(state, options.lines) if verb == "logs" else _stop(state, folder)


def _ask(state: LaunchState, verb: str) -> int:
    """Has the platform's own tool answer."""
    return subprocess.run(state.commands[verb], check=False).returncode  # noqa: S603


def _status(state: LaunchState, folder: Path, *, as_json: bool) -> int:
    run_dir, standing = _look(state, folder)
    here = state.host == socket.gethostname()
    phase = state.phase
    if phase in _LIVE and here and not _lives(state):
        phase = "failed"  # the launcher was killed, and had no time to say so
    workers = [
        worker | {"state": process_state(worker["pid"]) if here else "elsewhere"}
        for worker in state.workers
        if phase in _LIVE
    ]
    hosts = read_hosts(run_dir) if phase in _LIVE else None
    wall = read_goodput(run) if (run := run_dir / GOODPUT).is_file() else None
    news = [(i.time, f"{i.kind} at step {i.step:,}: {i.text}") for i in read_incidents(run_dir)]
    if as_json:
        document = dataclasses.asdict(state) | dataclasses.asdict(standing)
        document |= {"goodput": wall.goodput if wall else None}
        document |= {"hosts": dataclasses.asdict(hosts) if hosts else None}
        print(json.dumps(document | {"phase": phase, "workers": workers}))
        return 0
    silent = standing.seconds_silent
    since = "not seen from here" if silent is None else f"{standing.step:,}, {silent:,.0f} s ago"
    rows = [
        ("run", f"{state.name} ({state.run_dir}), launched on {state.platform}"),
        ("phase", f"{phase}, attempt {state.attempt}"),
        ("last step", since),
        ("last checkpoint", "none" if standing.checkpoint is None else f"{standing.checkpoint:,}"),
    ]
    rows += [("wall time", str(wall))] if wall else []
    rows += [(f"process {w['index']}", f"pid {w['pid']}, {w['state']}") for w in workers]
    rows += [("hosts", told) for told in hosts.news()] if hosts else []
    news += [(incident["time"], incident["what"]) for incident in state.incidents]
    rows += [
        (time.strftime("%m-%d %H:%M:%S", time.localtime(when)), what)
        for when, what in sorted(news)[-_INCIDENTS_SHOWN:]
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def _look(state: LaunchState, folder: Path) -> tuple[Path, Standing]:
    """A folder with what the run wrote, and how far it is."""
    if is_remote(state.run_dir):
        from llama_jax.cli.launch.buckets import look_into

        try:
            return look_into(Url(state.run_dir))
        except StorageError as error:
            print(f"launch: {error}", file=sys.stderr)
            return folder, standing_of(folder)
    # What remote hosts write is seen here only where their disk is mounted here too.
    run_dir = Path(state.folder) / state.run_dir
    run_dir = run_dir if run_dir.is_dir() else folder
    return run_dir, standing_of(run_dir)


def _lives(state: LaunchState) -> bool:
    """Whether the launcher is there, and is no stranger who got its pid after it."""
    if process_state(state.pid) == "gone":
        return False
    command = Path(f"/proc/{state.pid}/cmdline")
    return not command.exists() or b"launch" in command.read_bytes()


def _logs(state: LaunchState, lines: int) -> int:
    logs = {f"process {worker['index']}": worker["log"] for worker in state.workers}
    logs |= {Path(log).stem.replace("-", " "): log for log in state.logs}
    for who, log in logs.items():
        print(f"--- {who}: {log}")
        print("\n".join(last_lines(Path(log), lines)))
    return 0


def _stop(state: LaunchState, folder: Path) -> int:
    if state.host != socket.gethostname():
        raise ValueError(f"NAME={state.name!r} was launched on {state.host}; stop it there.")
    if state.phase not in _LIVE or not _lives(state):
        print(f"{state.name} is not running", file=sys.stderr)
        return 0
    os.kill(state.pid, signal.SIGTERM)
    while _lives(state):
        time.sleep(0.1)
    state = LaunchState.load(folder)
    checkpoint = standing_of(folder).checkpoint
    saved = "no checkpoint" if checkpoint is None else f"checkpoint {checkpoint:,}"
    print(f"{state.name}: {state.phase}; {saved}", file=sys.stderr)
    return 0


def _resume(state: LaunchState) -> int:
    from llama_jax.cli import launch

    os.chdir(state.folder)
    return launch.main(state.argv)
