"""A whole build: the rate of each stage, two workers against one, and memory for eight copies.

Command: python benchmarks/data_build.py [--input FOLDER]

The text is real articles, pages, books and code of the samples beside the project, and what is
missing to `--megabytes` of Python's sources on this machine; or that of a folder. It goes through
rules (whose thresholds let all of it pass), near duplicates, paragraphs and a tokenizer. For
memory, each task has a process of its own; the eight copies of the documents differ in their last
line, so that all of them pass every stage.
"""

import collections
import dataclasses
import functools
import json
import multiprocessing
import random
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro
from samples.texts import CORPORA, real_documents

from data_pipelines.document import Dropped
from data_pipelines.engine import DONE, Listener, Task, run_task
from data_pipelines.local_pool import LocalPool
from data_pipelines.runner import build
from data_pipelines.sources import open_source, read_all
from data_pipelines.stages import deduplicate
from llama_jax.config import (
    BuildConfig,
    C4Rules,
    FilesSource,
    GopherQuality,
    MinHash,
    ParagraphDedup,
    PythonEnvironmentSource,
    TokenizerFile,
)
from llama_jax.data.sentencepiece import train_sentencepiece

TOKENIZER = "tokenizer.model"
FILTERS = (
    C4Rules(drop_curly_brackets=False, min_sentences=0, needs_terminal_punctuation=False),
    GopherQuality(
        min_words=0,
        max_words=1 << 40,
        min_mean_word_length=0.0,
        max_mean_word_length=1e9,
        min_alphabetic_words=0.0,
        min_stop_words=0,
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    input: str = ""
    """Folder of texts; the samples by default."""
    corpora: Path = CORPORA
    """Folder with the samples."""
    megabytes: int = 60
    """Of text, at most."""
    measure: tuple[Literal["speed", "memory"], ...] = ("speed", "memory")
    """Which of the two."""
    memory_megabytes: int = 12
    """Of one copy of the text, where memory is measured."""
    duckdb_mib: int = 64
    """What a task that sorts or joins may use, where memory is measured."""


def main(options: Options) -> None:
    """Prints both tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (texts := read_texts(options)):
            print(f"--corpora {options.corpora}: no documents there; nothing is measured.")
            return
        train_sentencepiece(texts[::20], folder / TOKENIZER, vocab_size=8000)
        if "speed" in options.measure:
            write_texts(texts, options.megabytes << 20, folder / "texts", copies=1)
            compare_workers(folder / "texts", folder)
        if "memory" in options.measure:
            for copies in (1, 8):
                size = options.memory_megabytes << 20
                write_texts(texts, size, folder / f"texts{copies}", copies=copies)
            compare_memory(folder, options.duckdb_mib << 20)


def read_texts(options: Options) -> list[str]:
    """Documents of the folder asked for, or of the samples."""
    if options.input:
        source = open_source(FilesSource(path=options.input))
        return [document.text for document in read_all(source, Dropped())]
    texts = real_documents(options.corpora, 1 << 20)
    missing = (options.megabytes << 20) - sum(len(text.encode()) for text in texts)
    if texts and missing > 0:
        for document in read_all(open_source(PythonEnvironmentSource()), Dropped()):
            texts.append(document.text)
            missing -= len(document.text.encode())
            if missing < 0:
                break
    return texts


def write_texts(texts: list[str], max_bytes: int, out: Path, *, copies: int) -> None:
    """Writes documents as text files; copies differ in their last line."""
    taken = 0
    for number, text in enumerate(random.Random(0).sample(texts, len(texts))):
        taken += len(text.encode())
        if taken > max_bytes:
            return
        for copy in range(copies):
            path = out / str(copy) / f"{number % 100:02d}" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\nthis is copy {copy}, {number}\n")


def recipe(texts: Path, tokenizer: Path) -> BuildConfig:
    """What is built; the tokenizer, whose training is not ours, is there already."""
    source = FilesSource(path=str(texts), filters=FILTERS, dedup=(MinHash(), ParagraphDedup()))
    return BuildConfig(
        name="benchmark",
        sources=(source,),
        tokenizer=TokenizerFile(path=str(tokenizer)),
        shard_tokens=4_000_000,
    )


def compare_workers(texts: Path, folder: Path) -> None:
    """Builds with one process and with two."""
    size = sum(path.stat().st_size for path in texts.rglob("*.txt"))
    runs = {}
    for workers in (1, 2):
        work, stages = folder / f"work{workers}", Stages()
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        with LocalPool(workers) as pool:
            out = folder / f"out{workers}"
            build(recipe(texts, folder / TOKENIZER), out, stages, run=pool, work=work)
        wall, cpu = time.perf_counter() - start, _cpu_seconds() - cpu_start
        of_tasks = task_seconds(work)
        idle = cpu - sum(map(sum, of_tasks.values()))
        alone = sum(longest_share(seconds, workers) for seconds in of_tasks.values())
        runs[workers] = (wall, alone)
        print(f"{workers} workers: {size / 1e6:.1f} MB in {wall:.1f} s, {cpu:.1f} s of CPU")
        print(f"  {'stage':14} {'MB':>7} {'seconds':>8} {'CPU':>7} {'busiest worker':>15}")
        for name, (num_bytes, taken) in stages.finish().items():
            seconds = of_tasks[name.split()[0]]
            print(
                f"  {name.split()[0]:14} {num_bytes / 1e6:7.1f} {taken:8.1f} {sum(seconds):7.1f} "
                f"{longest_share(seconds, workers):15.1f}"
            )
        print(f"  outside of tasks{idle:31.1f}")
    differ = _different(folder / "out1", folder / "out2")
    (wall, alone), (wall2, alone2) = runs[1], runs[2]
    print(f"two workers are {wall / wall2:.2f} times as fast as one")
    print(f"as tasks' CPU seconds are shared out: {alone / alone2:.2f} times")
    print(f"files that differ: {', '.join(differ) or 'none'}", flush=True)


def task_seconds(work: Path) -> dict[str, list[float]]:
    """CPU seconds of each task of each stage."""
    seconds = collections.defaultdict(list)
    for path in work.rglob(DONE):
        stage = path.relative_to(work).parts[0]
        seconds[stage].append(json.loads(path.read_text())["cpu_seconds"])
    return seconds


def longest_share(seconds: list[float], workers: int) -> float:
    """What the busiest worker has, where each takes the longest task left when it is free."""
    busy = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += each
    return max(busy)


def _cpu_seconds() -> float:
    """Of this process and of those it has seen end."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def _different(one: Path, two: Path) -> list[str]:
    names = {p.relative_to(out) for out in (one, two) for p in out.rglob("*") if p.is_file()}
    return [
        str(name)
        for name in sorted(names)
        if (one / name).read_bytes() != (two / name).read_bytes()
    ]


class Stages:
    """A `Reporter` that measures how long each stage takes."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._starts: list[tuple[str, float]] = []

    def stage(self, name: str, total_bytes: int) -> None:
        """See `Reporter`."""
        self._sizes[name] = total_bytes
        self._starts.append((name, time.perf_counter()))

    def advance(self, name: str, num_bytes: int) -> None:
        """See `Reporter`."""

    def died(self, tasks: Sequence[str]) -> None:
        """See `Reporter`."""
        print(f"  a process died, at work on {' or '.join(tasks)}")

    def finish(self) -> dict[str, tuple[int, float]]:
        """Bytes and seconds of each stage."""
        ends = [start for _, start in self._starts[1:]] + [time.perf_counter()]
        pairs = zip(self._starts, ends, strict=True)
        return {name: (self._sizes[name], end - start) for (name, start), end in pairs}


def compare_memory(folder: Path, duckdb_bytes: int) -> None:
    """Prints the highest peak of each stage's tasks, for one copy and for eight."""
    peaks = {}
    for copies in (1, 8):
        run = Measured(functools.partial(_limit_duckdb, duckdb_bytes))
        build(
            recipe(folder / f"texts{copies}", folder / TOKENIZER),
            folder / f"memory{copies}",
            Stages(),
            run=run,
        )
        peaks[copies] = run.peaks
        shutil.rmtree(folder / f"memory{copies}")
    print(f"{'peak MiB':16} {'1 copy':>8} {'8 copies':>8} {'ratio':>6}")
    for stage, one in peaks[1].items():
        eight = peaks[8][stage]
        print(f"{stage:16} {one:8.0f} {eight:8.0f} {eight / one:6.2f}", flush=True)


class Measured:
    """An `Executor` in which each task has a process of its own, whose peak is noted.

    Attributes:
        peaks: Of each stage, in MiB.
    """

    def __init__(self, prepare: Callable[[], None]):
        self._prepare = prepare
        self.peaks: dict[str, float] = collections.defaultdict(float)

    def __call__(self, tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener) -> None:
        """See `Executor`."""
        spawned = multiprocessing.get_context("spawn")
        for task, key in tasks:
            ours, theirs = spawned.Pipe()
            process = spawned.Process(
                target=_measure, args=(task, key, work, self._prepare, theirs)
            )
            process.start()
            # Else nobody hears of its death.
            theirs.close()
            stage = task.name.split("/")[0]
            self.peaks[stage] = max(self.peaks[stage], ours.recv())
            process.join()
            listener.finished(task.name)


def _limit_duckdb(num_bytes: int) -> None:
    deduplicate.MEMORY_BYTES = num_bytes


def _measure(task: Task, key: str, work: Path, prepare: Callable[[], None], answer) -> None:
    prepare()
    run_task(task, key, work, lambda num_bytes: None)
    # Not getrusage: its peak is inherited from the parent.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    answer.send(int(found[1]) / 1024 if found else float("nan"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
