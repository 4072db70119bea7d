"""Documents are sorted and merged with few open files and little memory, however many there are."""

import contextlib
import hashlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.document import Document
from data_pipelines.sources import open_source
from data_pipelines.stages import sorted_runs
from data_pipelines.stages.collect import Collect, collect, read_buckets
from data_pipelines.stages.gather import Gather, gather
from data_pipelines.tables import DOCUMENTS, Hashed, read_documents
from llama_jax.config import FilesSource
from tests.data_pipelines.small_build import texts


@contextlib.contextmanager
def few_open_files(most):
    """No more files than so many, beside those that are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts(100)):
        (folder / f"{number:03d}.txt").write_text(text)
    source = FilesSource(path=str(folder))
    return source, tuple(open_source(source).files())


def collected(source, files, folder):
    folder.mkdir()
    collect(Collect(source=source, files=files, num_buckets=4), (), folder, lambda done: None)
    return folder


def in_order(documents):
    hashed = [
        Hashed(hashlib.sha256(text.encode()).digest(), Document(i, text)) for i, text in documents
    ]
    return sorted(hashed)


def test_a_part_with_many_runs_needs_few_open_files(corpus, tmp_path, monkeypatch):
    source, files = corpus
    whole = collected(source, files, tmp_path / "whole")
    monkeypatch.setattr(sorted_runs, "_RUN_BYTES", 300)
    monkeypatch.setattr(sorted_runs, "_FAN_IN", 4)
    with few_open_files(16):
        pieces = collected(source, files, tmp_path / "pieces")
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert expected == {path.name: path.read_bytes() for path in pieces.iterdir()}
    assert len(list(read_buckets(pieces, 0, 4))) == 100


def test_many_parts_are_gathered_with_few_open_files(corpus, tmp_path):
    source, files = corpus
    parts = [
        collected(source, (file,), tmp_path / str(number)) for number, file in enumerate(files)
    ]
    (tmp_path / "gathered").mkdir()
    with few_open_files(16):
        gather(Gather(first=0, stop=4), tuple(parts), tmp_path / "gathered", lambda done: None)
    found = list(read_documents(tmp_path / "gathered" / DOCUMENTS))
    assert found == in_order((f"{number:03d}.txt", text) for number, text in enumerate(texts(100)))


_PEAK = """
import hashlib, pathlib, re, sys
from data_pipelines.document import Document
from data_pipelines.stages import sorted_runs
from data_pipelines.tables import Hashed
sorted_runs._RUN_BYTES = 1 << 18
def documents():
    for number in range(int(sys.argv[1])):
        text = f"{number} ".ljust(1 << 15, "x")
        yield Hashed(hashlib.sha256(text.encode()).digest(), Document(str(number), text))
scratch = pathlib.Path(sys.argv[2])
digests = [hashed.digest for hashed in sorted_runs.by_digest(documents(), scratch)]
assert digests == sorted(digests) and len(digests) == int(sys.argv[1])
assert not list(scratch.iterdir())
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_runs(tmp_path):
    """75 runs and 300."""
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", _PEAK, str(count), str(tmp_path)]))
        for count in (600, 2400)
    ]
    assert peaks[1] < 1.15 * peaks[0]
