"""Peak memory of each task of deduplication, for a corpus and for eight copies of it.

Command: python benchmarks/dedup_memory.py [--documents 8000]

Documents are made of real paragraphs; a copy differs from the first in its last word, so that it is
a near duplicate, and each task has eight times the rows to sort, join and group. Each task runs in
a process of its own, so that the peak is its own.
"""

import dataclasses
import hashlib
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tyro
from samples.texts import CORPORA, real_documents

from data_pipelines.document import Document
from data_pipelines.stages.minhash import sign
from data_pipelines.stages.near_duplicates import cluster, match
from data_pipelines.stages.paragraphs import find_repeats, hash_paragraphs, sort_repeats
from data_pipelines.stages.spill import Resources
from data_pipelines.tables import Hashed, read_documents, write_documents
from llama_jax.config import MinHash

_TASKS = ("sign", "match", "cluster", "hash_paragraphs", "find_repeats", "sort_repeats")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    corpora: Path = CORPORA
    """Folder with `wikipedia`, `books`, `commoncrawl` and `github`."""
    documents: int = 8_000
    """Documents of one copy."""
    memory_mib: int = 64
    """What DuckDB may use."""
    task: str = ""
    """Set where one task is measured, in `folder`."""
    folder: Path = Path()
    """Set likewise."""


def main(options: Options) -> None:
    """Prints a line a task: peaks for one and for eight copies, in MiB."""
    if options.task:
        run(options.task, options.folder, options.memory_mib << 20)
        # Not getrusage: its peak is inherited from the parent.
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)
        return
    texts = real_documents(options.corpora, 4000)
    if not texts:
        print(f"--corpora {options.corpora}: no documents there; nothing is measured.")
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        for copies in (1, 8):
            folder = Path(name) / str(copies)
            folder.mkdir()
            documents = sorted(made(texts, options.documents, copies))
            write_documents(folder / "documents", documents)
            size = sum(len(hashed.document.text.encode()) for hashed in documents) / 1e6
            print(f"{copies} copies: {len(documents):,} documents, {size:.1f} MB", flush=True)
            del documents
            for task in _TASKS:
                peaks[task, copies] = _peak(task, folder, options.memory_mib)
    print(f"{'peak MiB':16} {'1 copy':>8} {'8 copies':>8} {'ratio':>6}")
    for task in _TASKS:
        one, eight = peaks[task, 1], peaks[task, 8]
        print(f"{task:16} {one:8.0f} {eight:8.0f} {eight / one:6.2f}")


def made(texts: list[str], count: int, copies: int) -> Iterator[Hashed]:
    """Documents of eight real paragraphs each, and copies with another last word."""
    lines = [line for text in texts for line in text.split("\n") if 40 < len(line) < 400]
    chosen = random.Random(0)
    for number in range(count):
        text = "\n".join(chosen.choices(lines, k=8))
        for copy in range(copies):
            whole = f"{text}\n{number}x{copy}"
            digest = hashlib.sha256(whole.encode()).digest()
            yield Hashed(digest, Document(f"{number}/{copy}", whole))


def _peak(task: str, folder: Path, memory_mib: int) -> float:
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    command += ["--memory-mib", str(memory_mib)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def run(task: str, folder: Path, memory_bytes: int) -> None:
    """Runs one task on what those before it left in a folder."""
    resources = Resources(scratch=folder / "scratch", memory_bytes=memory_bytes)
    documents, signatures, hashes = (
        folder / name for name in ("documents", "signatures", "hashes")
    )
    config = MinHash(bands=1, threshold=0.5)
    if task == "sign":
        sign(documents, signatures, config)
    elif task == "match":
        match([signatures], 0, folder / "pairs", config, resources)
    elif task == "cluster":
        out = folder / "removed", folder / "sizes"
        cluster([signatures], [folder / "pairs"], [out[0]], out[1], resources)
    elif task == "hash_paragraphs":
        hash_paragraphs(read_documents(documents), hashes)
    elif task == "find_repeats":
        find_repeats([hashes], 0, 1, folder / "found", resources)
    elif task == "sort_repeats":
        sort_repeats([folder / "found"], [folder / "repeats"], resources)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
