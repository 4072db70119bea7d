"""How a worker answers: a line on stdin starts a round, a line of JSON on stdout ends it."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Operands of one kind of matmul take so much, more than what the last of the caches is worth.
_OPERAND_BYTES = 400 << 20


def serve(name: str, step: Callable[[], float], matmul: Callable[[], float]) -> None:
    """Warms up, says so, then runs rounds until stdin ends.

    Args:
        name: Of the worker, for its first line.
        step: Makes one update, waits for it, and returns the loss.
        matmul: Seconds that the best of a few float32 matmuls of side 2048 took.
    """
    losses = [step() for _ in range(3)]
    print(json.dumps({"name": name, "losses": losses}), flush=True)
    for line in sys.stdin:
        wall, cpu = [], []
        end = time.perf_counter() + float(line)
        while not wall or time.perf_counter() < end:
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            step()
            wall.append(time.perf_counter() - wall_start)
            cpu.append(time.process_time() - cpu_start)
        answer = {"wall": wall, "cpu": cpu, "matmul_seconds": matmul()}
        print(json.dumps(answer), flush=True)


def keep_to_cores() -> int:
    """Keeps this process to as many cores as argv says; before any library looks for them."""
    cores = int(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return cores


def serve_matmuls(make: Callable[[dict[str, Any], int], list[Callable[[], Any]]]) -> None:
    """Times the matmul that each line describes until stdin ends; answers seconds of each call.

    Args:
        make: From the line and a number of copies, calls on so many sets of operands.
    """
    ready: dict[str, list[Callable[[], Any]]] = {}
    for line in sys.stdin:
        case = json.loads(line)
        if line not in ready:
            tokens, into, out = case["shape"]
            one = 4 * (tokens * into + into * out + tokens * out)
            ready = {line: make(case, 1 + _OPERAND_BYTES // one)}
        for call in ready[line]:
            call()
        times: list[float] = []
        end = time.perf_counter() + case["seconds"]
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            ready[line][len(times) % len(ready[line])]()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)
