"""Files written with their SHA-256, past the page cache and through it."""

import errno
import fcntl
import hashlib
import os
import zlib

import numpy as np
import pytest

from llama_jax.convert import digested_file
from llama_jax.convert.digested_file import DigestedFile

DATA = np.random.default_rng(0).bytes(100_000)
REFUSALS = ["", "when asked", "when written"]


@pytest.fixture(params=REFUSALS, ids=["direct", *REFUSALS[1:]])
def file_system(request, monkeypatch):
    """Buffers of two blocks, and what a file system may say of writes past the page cache."""
    monkeypatch.setattr(digested_file, "_BUFFER_BYTES", 8192)

    def refuse(function, is_direct):
        def call(file, *arguments):
            if is_direct(file, *arguments):
                raise OSError(errno.EINVAL, "Invalid argument")
            return function(file, *arguments)

        return call

    def asks(file, command, flags=0):
        return command == fcntl.F_SETFL and flags & os.O_DIRECT

    def writes(file, *arguments):
        return fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT

    if request.param == "when asked":
        monkeypatch.setattr(digested_file.fcntl, "fcntl", refuse(fcntl.fcntl, asks))
    if request.param == "when written":
        monkeypatch.setattr(digested_file.os, "pwrite", refuse(os.pwrite, writes))


def written(path, *pieces) -> DigestedFile:
    file = DigestedFile(path)
    for piece in pieces:
        file.append(piece)
    return file


@pytest.mark.parametrize("step", [1000, 4096, 8192, 8193, 50_000, 100_000])
def test_bytes_and_digest_are_those_that_were_added(tmp_path, file_system, step):
    pieces = [DATA[start : start + step] for start in range(0, len(DATA), step)]
    file = written(tmp_path / "file", *pieces)
    assert file.finish() == hashlib.sha256(DATA).hexdigest()
    assert file.num_bytes == len(DATA)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_piece_may_be_overwritten_at_once(tmp_path, file_system):
    file, piece = DigestedFile(tmp_path / "file"), bytearray(3000)
    for start in range(0, 90_000, 3000):
        piece[:] = DATA[start : start + 3000]
        file.append(piece)
    piece[:] = bytes(3000)
    assert file.finish() == hashlib.sha256(DATA[:90_000]).hexdigest()
    assert (tmp_path / "file").read_bytes() == DATA[:90_000]


@pytest.mark.parametrize("first", [0, 10, 4096, 8192, 20_000, 60_001])
def test_what_is_there_is_kept_and_what_follows_is_added(tmp_path, file_system, first):
    path = tmp_path / "file"
    path.write_bytes(DATA[:60_001] + bytes(7))
    file = written(path, DATA[:first])
    middle = DATA[first + 3 : 60_001]
    kept = file.keep(DATA[first : first + 3], len(middle), zlib.crc32(middle))
    assert kept == (first + 3 <= 60_001)
    file.append(DATA[file.num_bytes :])
    assert file.finish() == hashlib.sha256(DATA).hexdigest()
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("damage", ["head", "content", "cut"])
def test_what_is_damaged_is_not_kept(tmp_path, file_system, damage):
    path, held = tmp_path / "file", bytearray(DATA[:50_000])
    if damage == "cut":
        del held[-1]
    else:
        held[5 if damage == "head" else 40_000] ^= 1
    path.write_bytes(held)
    file = DigestedFile(path)
    assert not file.keep(DATA[:10], 49_990, zlib.crc32(DATA[10:50_000]))
    file.append(DATA[:30_000])
    # What lay behind is cut off.
    assert file.finish() == hashlib.sha256(DATA[:30_000]).hexdigest()
    assert path.read_bytes() == DATA[:30_000]


def test_what_was_added_is_there_after_an_interruption(tmp_path, file_system):
    written(tmp_path / "file", DATA[:50_000]).close()
    assert (tmp_path / "file").read_bytes() == DATA[:50_000]


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_is_told(tmp_path, file_system, monkeypatch, after):
    pwrite, calls = os.pwrite, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(*arguments)

    monkeypatch.setattr(digested_file.os, "pwrite", full)
    file = DigestedFile(tmp_path / "file")
    with pytest.raises(OSError, match="No space left"):
        for start in range(0, len(DATA), 1000):
            file.append(DATA[start : start + 1000])
    file.close()


def test_a_disk_that_is_full_at_the_end_is_told(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(digested_file.os, "pwrite", full)
    file = written(tmp_path / "file", DATA[:10])
    with pytest.raises(OSError, match="No space left"):
        file.finish()
    file.close()


def test_a_write_may_take_a_part(tmp_path, file_system, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(
        digested_file.os, "pwrite", lambda file, part, at: pwrite(file, part[:4096], at)
    )
    file = written(tmp_path / "file", DATA)
    assert file.finish() == hashlib.sha256(DATA).hexdigest()
    assert (tmp_path / "file").read_bytes() == DATA
