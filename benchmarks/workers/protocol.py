"""How a worker answers: a line on stdin starts a round, a line of JSON on stdout ends it."""

import json
import sys
import time
from collections.abc import Callable


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
