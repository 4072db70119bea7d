"""LLaMA-1's mixture from a sample of its corpora: what a trillion tokens cost, a model's losses.

Command: python benchmarks/mixture.py --out FOLDER

What a person types does the work: `llama-jax data build llama1_mix`, without C4, and `llama-jax
train`. CPU seconds are those that the tasks of the build tell. The tokenizer's are apart: it is
trained once, however much text there is. Core hours for a trillion tokens are at the rate of the
sample, of each source alone, of all as they lie there, and in LLaMA-1's weights. Losses are of
held-out documents; FOLDER/run has the picture. Started again, it goes on.
"""

import collections
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from samples.texts import CORPORA

from configs.data.llama1_mix import config
from data_pipelines.engine import DONE
from llama_jax.observe.writers import read_metrics

TRILLION = 1e12
BUILD = {
    "skip": "c4",
    "held-out-fraction": 0.02,
    "tokenizer.vocab-size": 8000,
    "tokenizer.sample-bytes": 40_000_000,
}
TRAINING = {
    "data.seq-len": 512,
    "train.batch-size": 16,
    "optimizer.peak-lr": 0.006,
    "schedule.warmup-steps": 30,
    "schedule.decay-steps": 75,
    "evaluate.every-steps": 60,
    "evaluate.num-batches": 16,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is built and trained."""

    out: Path
    """Folder for the tasks, the dataset and the run."""
    corpora: Path = CORPORA
    """Folder with the samples."""
    workers: int = 2
    """Processes of the build."""
    num_steps: int = 300
    """Updates of the model, of 8,192 tokens; 0 trains none."""


def main(options: Options) -> None:
    """Prints both tables."""
    if not options.corpora.is_dir():
        print(f"skipped: no folder {options.corpora}; give one with --corpora")
        return
    data, run, work = (options.out / name for name in ("data", "run", "work"))
    paths = {"input": options.corpora, "out": data, "work": work}
    _llama_jax(("data", "build", "llama1_mix"), BUILD | paths | {"workers": options.workers})
    report = json.loads((data / "report.json").read_text())
    print_costs(report["sources"], cpu_seconds(work))
    if options.num_steps:
        wanted = {"data.directory": data, "run-dir": run, "train.num-steps": options.num_steps}
        _llama_jax(("train", "ladder_1m"), TRAINING | wanted)
        print_losses(run / "metrics.jsonl")


def cpu_seconds(work: Path) -> dict[str, float]:
    """Of the tasks of each source, and of the tokenizer."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for path in work.rglob(DONE):
        step, source = path.relative_to(work).parts[:2]
        seconds[step if source == DONE else source] += json.loads(path.read_text())["cpu_seconds"]
    return seconds


def print_costs(sources: dict[str, Any], seconds: dict[str, float]) -> None:
    """A line for each source, one for all, and one in LLaMA-1's weights."""
    head = ("read", "filtered", "kept", "tokens", "CPU s", "core h for 1T")
    print(f"{'':16}" + "".join(f"{name:>15}" for name in head))
    tokens = {name: source["splits"]["train"]["tokens"] for name, source in sources.items()}
    for name, source in sources.items():
        kept = sum(split["documents"] for split in source["splits"].values())
        counts = (source["passages"][0]["documents"], _filtered(source), kept, tokens[name])
        hours = _core_hours(seconds[name] / tokens[name])
        numbers = "".join(f"{count:15,}" for count in counts)
        print(f"{name:16}{numbers}{seconds[name]:15.1f}{hours:15,.0f}")
    total = sum(seconds[name] for name in sources)
    hours = _core_hours(total / sum(tokens.values()))
    print(f"{'all, as they lie':61}{sum(tokens.values()):15,}{total:15.1f}{hours:15,.0f}")
    weights = {name: weight for name, weight in config().mixture if name in sources}
    each = sum(weight * seconds[name] / tokens[name] for name, weight in weights.items())
    print(f"in LLaMA-1's weights{_core_hours(each / sum(weights.values())):86,.0f}")
    print(f"the tokenizer{seconds['tokenizer']:78.1f}", flush=True)


def print_losses(metrics: Path) -> None:
    """Bits per byte of each source, the last ones there are."""
    last: dict[str, float] = {}
    for record in read_metrics(metrics):
        last |= {key: value for key, value in record.items() if key.startswith("heldout/")}
    for key, value in sorted(last.items(), key=lambda pair: pair[1]):
        if key.endswith("/bits_per_byte"):
            print(f"{key:40} {value:.3f}")


def _filtered(source: dict[str, Any]) -> int:
    """Documents that the filters left, before equal ones were found."""
    places = source["passages"]
    names = [place["name"] for place in places]
    return places[names.index("exact duplicates") - 1]["documents"]


def _core_hours(seconds_per_token: float) -> float:
    return seconds_per_token * TRILLION / 3600


def _llama_jax(command: tuple[str, ...], flags: Mapping[str, object]) -> None:
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    run = subprocess.run(
        [sys.executable, "-m", "llama_jax.cli.main", *command, *given], check=False
    )
    if run.returncode:
        sys.exit(run.returncode)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
