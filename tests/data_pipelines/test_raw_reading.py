"""Raw files are read wherever they lie; one that cannot be read is not taken for a damaged one."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from data_pipelines import plan, raw_stream
from data_pipelines.document import Dropped, RawFile
from data_pipelines.runner import build
from data_pipelines.sources import open_source, read_all
from tests.data_pipelines.raw_corpora import CORPORA
from tests.data_pipelines.small_build import Quiet, contents

pytest.importorskip("fastwarc", reason="needs the extra data")
every_corpus = pytest.mark.parametrize(
    "corpus", CORPORA, ids=[f"{corpus.source.__name__}-{corpus.name}" for corpus in CORPORA]
)


def collect(corpus, path):
    dropped = Dropped()
    return list(read_all(open_source(corpus.source(path=str(path))), dropped)), dropped.counts


class Network:
    """Where files are; loses the connection before an eighth of each has come, so many times."""

    def __init__(self, monkeypatch, failures, error: type[OSError] = ConnectionResetError):
        self.failures, self.error, self.pauses = failures, error, []
        monkeypatch.setattr(RawFile, "_stream", lambda file: _Lossy(file.url, self))
        monkeypatch.setattr(raw_stream.time, "sleep", self.pauses.append)


class _Lossy(io.FileIO):
    def __init__(self, path, network):
        super().__init__(path)
        # Tars end in zeros, which nobody reads.
        self._network, self._lost_at = network, Path(path).stat().st_size // 8

    def readinto(self, buffer):
        left = self._lost_at - self.tell()
        if self._network.failures and left <= 0:
            self._network.failures -= 1
            raise self._network.error("peer")
        # Not across that place.
        return super().readinto(memoryview(buffer)[: left if left > 0 else None])


@every_corpus
def test_a_connection_lost_and_found_costs_nothing(tmp_path, monkeypatch, corpus):
    path = tmp_path / corpus.name
    path.write_bytes(corpus.data)
    before, _ = collect(corpus, path)
    assert before
    network = Network(monkeypatch, failures=3)
    documents, dropped = collect(corpus, path)
    assert documents == before
    assert not dropped
    assert network.pauses == [0.5, 2.0, 8.0]


@every_corpus
def test_a_file_that_cannot_be_read_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch, corpus):
    path = tmp_path / corpus.name
    path.write_bytes(corpus.data)
    network = Network(monkeypatch, failures=10**6)
    dropped = Dropped()
    with pytest.raises(OSError, match=r"cannot be read \(ConnectionResetError: peer\)"):
        list(read_all(open_source(corpus.source(path=str(path))), dropped))
    assert not dropped.counts
    assert len(network.pauses) == 4


def test_what_does_not_change_is_not_waited_for(tmp_path, monkeypatch):
    network = Network(monkeypatch, failures=1, error=PermissionError)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(OSError, match="PermissionError"):
        collect(CORPORA[0], tmp_path)
    assert not network.pauses


def test_a_build_fails_at_such_a_file_and_goes_on_once_it_can_be_read(
    config, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        Network(patched, failures=10**6)
        with pytest.raises(ValueError, match=r"000\.txt cannot be read .*run the same command"):
            build(config, tmp_path / "out", Quiet())
    build(config, tmp_path / "out", Quiet())
    build(config, tmp_path / "whole", Quiet())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@every_corpus
def test_behind_a_url_is_what_is_in_a_folder(tmp_path, corpus):
    memory, url = fsspec.filesystem("memory"), f"memory:/{tmp_path}"
    (tmp_path / "below").mkdir()
    for name in (corpus.name, f"below/{corpus.name}"):
        (tmp_path / name).write_bytes(corpus.data)
        memory.pipe_file(f"{url}/{name}", corpus.data)
    assert collect(corpus, url) == collect(corpus, tmp_path)
    # One file, and what tells that it has changed.
    (file,) = open_source(corpus.source(path=f"{url}/{corpus.name}")).files()
    assert (file.name, file.size_bytes) == (corpus.name, len(corpus.data))
    before = plan.fingerprint(file)
    assert plan.fingerprint(file) == before
    memory.pipe_file(f"{url}/{corpus.name}", corpus.data + b"more")
    assert plan.fingerprint(file) != before
    memory.rm(url, recursive=True)


# What is said of a file of no bytes; nothing of lines, which there may be none of.
OF_NOTHING = {
    ".txt": {"no text"},
    ".jsonl": set(),
    ".parquet": {"file damaged, the rest of it is lost (ArrowInvalid)"},
    ".tar": {f"{what} damaged, the rest of it is lost (ReadError)" for what in ("file", "tar")},
    ".tar.bz2": {"file damaged, the rest of it is lost (EOFError)"},
    ".xml": {"file damaged, the rest of it is lost (ExpatError)"},
    ".xml.bz2": {"file damaged, the rest of it is lost (EOFError)"},
    ".7z": {"7z archive damaged (EOFError)"},
    ".wacz": {"file damaged, the rest of it is lost (BadZipFile)", "no page in the file"},
    ".warc": {"no page in the file"},
    ".wet": {"no page in the file"},
    ".arc": {"no page in the file"},
}


def said_of(name):
    kinds = [kind for kind in OF_NOTHING if name.endswith((kind, f"{kind}.gz", f"{kind}.zst"))]
    return OF_NOTHING[kinds[0]]


@every_corpus
def test_an_empty_file_is_no_document_and_ends_nothing(tmp_path, corpus):
    path = tmp_path / corpus.name
    path.write_bytes(b"")
    documents, dropped = collect(corpus, path)
    assert not documents
    assert set(dropped) <= said_of(corpus.name)
    assert bool(dropped) == bool(said_of(corpus.name))


READ = """
import json, re, sys
from pathlib import Path
from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.config import FilesSource

def peak_bytes():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

source, dropped = open_source(FilesSource(path=sys.argv[1])), Dropped()
import pyarrow, zstandard  # what is imported is no memory of the reading
before = peak_bytes()
ids = [document.id for document in read_all(source, dropped)]
print(json.dumps([ids, dropped.examples, peak_bytes() - before]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        # Large plain files are read in pieces, and their lines named by bytes.
        ("a.jsonl", "@0", f"@{(1 << 30) + 13}"),
        ("a.jsonl.gz", "1", "2"),
    ],
)
def test_a_line_of_a_gigabyte_is_counted_in_bounded_memory(tmp_path, name, first, second):
    path, size = tmp_path / name, 1 << 30
    begin, end = b'{"text": "', b'"}\n{"text": "next"}\n'
    with path.open("wb") as file:
        if name.endswith(".gz"):
            # Members of a gzip file follow one another as if they were one.
            piece = gzip.compress(bytes(1 << 24))
            file.write(gzip.compress(begin) + piece * (size >> 24) + gzip.compress(end))
        else:
            file.write(begin)
            file.seek(size, os.SEEK_CUR)
            file.write(end)
    child = [sys.executable, "-c", READ, str(path)]
    answer = subprocess.run(child, check=True, capture_output=True, text=True)
    path.unlink()
    ids, examples, peak = json.loads(answer.stdout)
    assert ids == [f"{name}:{second}"]
    assert examples == {"longer than 16,777,216 bytes": [f"{name}:{first}"]}
    assert peak < 100 << 20


def test_a_place_that_no_file_has_is_damage(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with RawFile("a.txt", str(tmp_path / "a.txt"), 4).open() as file:
        for place, whence in ((-1, 0), (-5, 2)):
            with pytest.raises(OSError, match=r"Invalid argument|no place in the file"):
                file.seek(place, whence)
        assert file.seek(1) == 1
        assert file.read() == b"ext"
