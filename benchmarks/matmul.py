"""How much of the training step's distance to PyTorch on this CPU is the speed of its matmuls.

Command: python benchmarks/matmul.py [--torch-python PATH]

Every matmul of weights in a step of `train_step.py`'s sizes, alone: forward, gradient of the input
and gradient of the weight, by XLA as our step asks for it and by PyTorch as transformers does, on
one core and on all. Each framework has a process for each number of cores; they take turns, so
that one works at a time and all see the same machine. Operands are too many to stay in the cache.
The fastest tenth of the calls counts, for what disturbs a call only ever slows it. Then whole steps
are measured, and from the best of each what ours would take with PyTorch's matmuls.
"""

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import train_step
import tyro

FORMS = ("forward", "of input", "of weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    sizes: tuple[str, ...] = ("tiny", "small")
    """Of `train_step.SHAPES`."""
    rounds: int = 5
    """Turns of each process at each matmul."""
    seconds: float = 0.15
    """Length of such a turn."""
    step_rounds: int = 5
    """Turns of each framework at whole steps; 0 leaves them out."""
    step_seconds: float = 6.0
    """Length of such a turn."""
    torch_python: str = sys.executable
    """Python with torch and transformers."""


@dataclasses.dataclass(frozen=True)
class Matmul:
    """One kind of matmul in a step: tokens, width in, width out, and how often it is done."""

    name: str
    ours: tuple[int, int, int]
    our_count: int
    theirs: tuple[int, int, int]
    their_count: int

    @property
    def flops(self) -> float:
        """Of all of them in one form, in a step; the same in both frameworks."""
        tokens, into, out = self.ours
        return 2.0 * tokens * into * out * self.our_count


def matmuls_of(size: str) -> list[Matmul]:
    """The matmuls of weights in a step; ours has gate and up in one, and the logits in chunks."""
    shape = train_step.COMMON | train_step.SHAPES[size]
    D, F, L, V = (shape[key] for key in ("embed_dim", "mlp_dim", "num_layers", "vocab_size"))
    T, chunks = shape["batch_size"] * shape["seq_len"], train_step.LOSS_CHUNKS[size]
    return [
        Matmul("query, key, value, out", (T, D, D), 4 * L, (T, D, D), 4 * L),
        Matmul("gate and up", (T, D, 2 * F), L, (T, D, F), 2 * L),
        Matmul("down", (T, F, D), L, (T, F, D), L),
        Matmul("logits", (T // chunks, D, V), chunks, (T, D, V), 1),
    ]


class Worker:
    """A framework on a number of cores."""

    def __init__(self, python: str, script: str, cores: int):
        self.process = subprocess.Popen(
            [python, str(train_step.WORKERS / script), str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=train_step.environment(),
        )

    def time(self, case: dict[str, Any]) -> list[float]:
        """Seconds of each call in a turn."""
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended; its error is above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def main(options: Options) -> None:
    """Measures and prints, size by size."""
    if missing := train_step.torch_is_missing(options.torch_python):
        print(f"skipped, for there is nothing to compare with: {missing}", file=sys.stderr)
        return
    print(f"load of the machine at the start: {os.getloadavg()[0]:.2f}")
    for size in options.sizes:
        steps = measure_steps(size, options) if options.step_rounds else None
        seconds = {}
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            seconds = measure_matmuls(size, cores, options)
            print_table(size, cores, seconds)
        if steps:
            print_what_if(size, steps, seconds)
    print(f"load of the machine at the end: {os.getloadavg()[0]:.2f}")


def measure_matmuls(size: str, cores: int, options: Options) -> dict[tuple[str, str], list[float]]:
    """Seconds that ours and theirs spend in a step on each kind and form."""
    workers = [
        Worker(sys.executable, "jax_matmul.py", cores),
        Worker(options.torch_python, "torch_matmul.py", cores),
    ]
    taken: dict[tuple[str, str], list[list[float]]] = {}
    try:
        for matmul, form in itertools.product(matmuls_of(size), FORMS):
            times = taken.setdefault((matmul.name, form), [[], []])
            case = {"form": form, "logits": matmul.name == "logits", "seconds": options.seconds}
            for _ in range(options.rounds):
                times[0] += workers[0].time(case | {"shape": matmul.ours})
                times[1] += workers[1].time(case | {"shape": matmul.theirs})
    finally:
        for worker in workers:
            worker.close()
    counts = {m.name: (m.our_count, m.their_count) for m in matmuls_of(size)}
    return {
        (name, form): [
            statistics.quantiles(times, n=10)[0] * count
            for times, count in zip(both, counts[name], strict=True)
        ]
        for (name, form), both in taken.items()
    }


def measure_steps(size: str, options: Options) -> tuple[float, float]:
    """Seconds of our best step, and of PyTorch's."""
    step_options = train_step.Options(
        rounds=options.step_rounds, seconds=options.step_seconds, torch_python=options.torch_python
    )
    shape = train_step.COMMON | train_step.SHAPES[size]
    tokens = shape["batch_size"] * shape["seq_len"]
    rows = train_step.measure(size, "float32", step_options, with_torch=True)
    ours, *theirs = (tokens / row["best_tokens_per_second"] for row in rows)
    return ours, min(theirs)


def print_table(size: str, cores: int, seconds: dict[tuple[str, str], list[float]]) -> None:
    """GFLOP/s of each kind and form, ours and theirs, and the time of all in a step."""
    print(f"\n{size}, {cores} {'core' if cores == 1 else 'cores'}, GFLOP/s: XLA / PyTorch\n")
    print(f"| tokens, in, out | {' | '.join(FORMS)} |\n|---|---|---|---|")
    for matmul in matmuls_of(size):
        rates = (
            " / ".join(f"{matmul.flops / s / 1e9:.0f}" for s in seconds[matmul.name, form])
            for form in FORMS
        )
        shape = ", ".join(map(str, matmul.theirs))
        print(f"| {matmul.name}: {shape} | {' | '.join(rates)} |")
    ours, theirs = (sum(column) for column in zip(*seconds.values(), strict=True))
    print(f"\nall of a step: {ours * 1e3:.0f} ms / {theirs * 1e3:.0f} ms = {ours / theirs:.2f}")


def print_what_if(
    size: str, steps: tuple[float, float], seconds: dict[tuple[str, str], list[float]]
) -> None:
    """The step that PyTorch's matmuls would give, beside the measured ones."""
    ours, theirs = steps
    our_matmuls, their_matmuls = (sum(column) for column in zip(*seconds.values(), strict=True))
    would_be = ours - our_matmuls + their_matmuls
    print(
        f"{size}, best step on all cores: ours {ours * 1e3:.0f} ms, PyTorch's best "
        f"{theirs * 1e3:.0f} ms: {theirs / ours:.2f}x its speed. Beside these matmuls ours takes "
        f"{(ours - our_matmuls) * 1e3:.0f} ms, PyTorch {(theirs - their_matmuls) * 1e3:.0f} ms. "
        f"With PyTorch's matmuls ours would take {would_be * 1e3:.0f} ms: {theirs / would_be:.2f}x."
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
