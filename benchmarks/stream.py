"""How fast one core trains from raw documents, and what bounds it.

Command: python benchmarks/stream.py [--million-tokens 3]

Of each sample corpus: the documents alone, read and filtered; the tokenizer alone, on the same
texts; and the batches of a run that streams them, from the first to the last. Rates are millions of
tokens a second of CPU time; memory is the peak of a process that did all three.
"""

import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from data_pipelines.stream import open_raw
from llama_jax.config import (
    BooksSource,
    BuildConfig,
    CommonCrawlSource,
    DataConfig,
    GopherQuality,
    GopherRepetition,
    TokenizerFile,
    WikipediaSource,
)
from llama_jax.data.streamed import open_stream
from llama_jax.data.tokenizer import Tokenizer, load_tokenizer

SAMPLES = Path(__file__).parents[2] / "shared" / "corpora"
TOKENIZER = SAMPLES / "tokenizers" / "llama2.model"
RULES = (GopherQuality(), GopherRepetition())
SOURCES = {
    "books": BooksSource(path=str(SAMPLES / "books")),
    "wikipedia": WikipediaSource(path=str(SAMPLES / "wikipedia")),
    "web archives": CommonCrawlSource(path=str(SAMPLES / "commoncrawl")),
    "web archives, Gopher's rules": CommonCrawlSource(
        path=str(SAMPLES / "commoncrawl"), filters=RULES
    ),
}
SEQ_LEN, BATCH = 2048, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    million_tokens: float = 2.0
    """Of each source, at most."""
    source: str = ""
    """One of SOURCES; all of them by default, a process each."""


def main(options: Options) -> None:
    """Measures the one source asked for, or all that are there."""
    if options.source:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        measure(options.source, int(options.million_tokens * 1e6))
        return
    if not TOKENIZER.is_file():
        print("skipped: there are no sample corpora beside the project")
        return
    print(f"{'':30} {'documents':>10} {'tokenizer':>10} {'stream':>8} {'memory':>10}")
    for name in SOURCES:
        size = str(options.million_tokens)
        command = [sys.executable, __file__, "--source", name, "--million-tokens", size]
        subprocess.run(command, check=True)


def measure(name: str, most: int) -> None:
    """Prints the rates of a source."""
    tokenizer = load_tokenizer(TOKENIZER)
    config = BuildConfig(
        name="bench",
        sources=(SOURCES[name],),
        tokenizer=TokenizerFile(path=str(TOKENIZER)),
    )
    reading, encoding, tokens = alone(config, tokenizer, most)
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_stream(
            DataConfig(seq_len=SEQ_LEN),
            config,
            open_raw(config),
            tokenizer,
            vocab_size=32_000,
            batch_size=BATCH,
            folder=Path(folder),
            write=True,
        )
        start, steps = time.process_time(), max(tokens // (SEQ_LEN * BATCH), 1)
        for step in range(steps):
            dataset.batch(step * BATCH)
        streaming = time.process_time() - start
        dataset.close()
        # A thread is at work on the window after these: the true rate is somewhat higher.
        windows = read_windows(Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    streamed = sum(windows)
    rates = (tokens / reading / 1e6, tokens / encoding / 1e6, streamed / streaming / 1e6)
    print(
        f"{name:30} {rates[0]:10.2f} {rates[1]:10.2f} {rates[2]:8.2f} {peak:6.0f} MiB"
        f"   ({streamed:,} tokens, {len(windows)} windows)",
        flush=True,
    )


def read_windows(folder: Path) -> list[int]:
    """Tokens of each window that a stream has read."""
    (index,) = folder.glob("*.windows.jsonl")
    return [json.loads(line)[-1] for line in index.read_text().splitlines()]


def alone(config: BuildConfig, tokenizer: Tokenizer, most: int) -> tuple[float, float, int]:
    """CPU seconds for an epoch's first documents and for their tokens, and how many those are."""
    (raw,) = open_raw(config)
    documents = itertools.chain.from_iterable(raw.documents(file) for file in range(len(raw.files)))
    reading, encoding, tokens = 0.0, 0.0, 0
    while tokens < most:
        start = time.process_time()
        texts = [text for _, text, _ in itertools.islice(documents, 16)]
        reading += time.process_time() - start
        start = time.process_time()
        tokens += sum(map(len, tokenizer.encode_batch(texts, bos=True, eos=True)))
        encoding += time.process_time() - start
        if not texts:
            break
    return reading, encoding, tokens


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
