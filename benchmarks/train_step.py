"""Our training step against transformers + PyTorch, eager and compiled, on this CPU.

Command: python benchmarks/train_step.py --rounds 3 [--torch-python PATH]

Each framework has a process of its own, compiled and warm; rounds alternate between them, so that
one runs at a time and all see the same machine. The medians of all steps count. Both make whole
updates: forward, backward, clipping to a global norm of 1, AdamW. On a busy machine the tokens per
CPU second are the honest figure: processor time, not waiting, is in them.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro

from llama_jax.config import ModelConfig
from llama_jax.flops import train_flops_per_token

WORKERS = Path(__file__).parent / "workers"
SHAPES = {
    "tiny": {"embed_dim": 256, "num_layers": 4, "mlp_dim": 688, "num_heads": 4, "batch_size": 8},
    "small": {"embed_dim": 512, "num_layers": 8, "mlp_dim": 1376, "num_heads": 8, "batch_size": 4},
}
COMMON = {"vocab_size": 8192, "seq_len": 512}
LOSS_CHUNKS = {"tiny": 8, "small": 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    sizes: tuple[str, ...] = ("tiny", "small")
    """Of SHAPES."""
    rounds: int = 3
    """Turns of each framework."""
    seconds: float = 8.0
    """Length of a turn."""
    torch_python: str = sys.executable
    """Python with torch and transformers."""
    bfloat16: bool = True
    """Whether to add rows of bfloat16 compute, which do not count."""
    json: bool = False
    """Print one JSON document."""


@dataclasses.dataclass
class Contender:
    """A framework on one size, and what its rounds gave."""

    case: dict[str, Any]
    process: subprocess.Popen[str]
    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)
    matmul_seconds: float = float("inf")

    def answer(self) -> dict[str, Any]:
        """The next line of the worker."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.case['name']} ended; its error is above")
        return json.loads(line)

    def turn(self, seconds: float) -> None:
        """One round."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.wall += answer["wall"]
        self.cpu += answer["cpu"]
        self.matmul_seconds = min(self.matmul_seconds, answer["matmul_seconds"])

    def row(self) -> dict[str, Any]:
        """Figures of all rounds."""
        tokens = self.case["batch_size"] * self.case["seq_len"]
        wall = statistics.median(self.wall)
        model = ModelConfig(
            num_kv_heads=self.case["num_heads"],
            head_dim=64,
            max_seq_len=self.case["seq_len"],
            **{
                name: self.case[name]
                for name in ("num_layers", "embed_dim", "mlp_dim", "num_heads", "vocab_size")
            },
        )
        flops = train_flops_per_token(model, self.case["seq_len"], "causal")
        return {
            "name": self.case["name"],
            "dtype": self.case["dtype"],
            "steps": len(self.wall),
            "tokens_per_second": tokens / wall,
            "best_tokens_per_second": tokens / min(self.wall),
            "tokens_per_cpu_second": tokens / statistics.median(self.cpu),
            "gflops_per_second": flops * tokens / wall / 1e9,
            "matmul_gflops_per_second": 2 * 2048**3 / self.matmul_seconds / 1e9,
        }


def main(options: Options) -> None:
    """Measures each size in turn and prints the tables."""
    missing = torch_is_missing(options.torch_python)
    if missing:
        print(f"PyTorch rows are skipped: {missing}", file=sys.stderr)
    results = {}
    for size in options.sizes:
        rows = []
        for dtype in ("float32", "bfloat16")[: 1 + options.bfloat16]:
            rows += measure(size, dtype, options, with_torch=not missing)
        results[size] = rows
        if not options.json:
            print_table(size, rows)
    if options.json:
        print(json.dumps(results))


def torch_is_missing(python: str) -> str:
    """Why there can be no PyTorch rows; empty where there can."""
    probe = [python, "-c", "import torch, transformers"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True, env=environment())
    except OSError as error:
        return str(error)
    return answer.stderr.strip().splitlines()[-1] if answer.returncode else ""


def environment() -> dict[str, str]:
    """Of all workers: CPU alone."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def measure(size: str, dtype: str, options: Options, *, with_torch: bool) -> list[dict[str, Any]]:
    """Alternates rounds of all frameworks on one size."""
    case = COMMON | SHAPES[size] | {"dtype": dtype, "cores": len(os.sched_getaffinity(0))}
    case["loss_chunks"] = LOSS_CHUNKS[size]
    cases = [(sys.executable, "jax_step.py", case | {"name": "llama_jax"})]
    if with_torch:
        for name, compiled in (("transformers", False), ("transformers, compiled", True)):
            extra = {"name": name, "compiled": compiled}
            cases.append((options.torch_python, "torch_step.py", case | extra))
    contenders = []
    try:
        for python, worker, case in cases:
            command = [python, str(WORKERS / worker), json.dumps(case)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
            )
            contenders.append(Contender(case, process))
            contenders[-1].answer()  # compiled and warm, before the next one starts
        for _ in range(options.rounds):
            for contender in contenders:
                contender.turn(options.seconds)
        return [contender.row() for contender in contenders]
    finally:
        for contender in contenders:
            contender.process.stdin.close()
            contender.process.wait()


def print_table(size: str, rows: list[dict[str, Any]]) -> None:
    """For people; ratios are against the best PyTorch row of the same dtype."""
    limit = max(row["matmul_gflops_per_second"] for row in rows)
    print(f"\n{size}; matmul limit measured here: {limit:.0f} GFLOP/s float32")
    print(f"{'':24}{'dtype':>9}{'tok/s':>8}{'best':>8}{'tok/cpu-s':>11}{'GFLOP/s':>9}{'limit':>7}")
    for row in rows:
        print(
            f"{row['name']:24}{row['dtype']:>9}{row['tokens_per_second']:8.0f}"
            f"{row['best_tokens_per_second']:8.0f}{row['tokens_per_cpu_second']:11.0f}"
            f"{row['gflops_per_second']:9.0f}{row['gflops_per_second'] / limit:7.0%}"
        )
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        ours, *peers = (row for row in rows if row["dtype"] == dtype)
        if peers:
            ratio = {
                figure: ours[figure] / max(row[figure] for row in peers)
                for figure in ("tokens_per_second", "tokens_per_cpu_second")
            }
            print(
                f"{dtype}: {ratio['tokens_per_second']:.2f}x the best of transformers, "
                f"{ratio['tokens_per_cpu_second']:.2f}x by CPU time"
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
