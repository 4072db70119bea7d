"""Processes that read ahead give what one process reads, in its order, and say what they lack."""

import json
import os

import pytest

from data_pipelines import read_ahead
from data_pipelines.read_ahead import ReadAhead, open_ahead
from data_pipelines.stream import RawDocuments, open_raw
from llama_jax.config import BuildConfig, FilesSource, GopherQuality, TokenizerFile


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for file in range(5):
        texts = [
            f"Harbour{file} has water and ships of number{line} to be seen with pleasure"
            for line in range(80)
        ]
        lines = [
            json.dumps({"text": f"{text} " * 120 if line % 3 else text}) + "\n"
            for line, text in enumerate(texts)
        ]
        (folder / f"{file}.jsonl").write_text("".join(lines) + "no JSON\n")
    (folder / "5.jsonl.gz").write_bytes(b"no gzip")
    return BuildConfig(
        name="test",
        sources=(FilesSource(path=str(folder), filters=(GopherQuality(),)),),
        tokenizer=TokenizerFile(path="-"),
        held_out_fraction=0.3,
    )


@pytest.fixture
def ahead(config, monkeypatch):
    """The source read by two processes, some of each file in a message."""
    monkeypatch.setattr(read_ahead, "_WORTH_BYTES", 0)
    monkeypatch.setattr(read_ahead, "_AHEAD", 1)
    (source,) = open_ahead(config, 2)
    assert isinstance(source, ReadAhead)
    yield source
    source.close()


def read(source: RawDocuments, order):
    source.expect(order)
    return [list(source.documents(file)) for file in order]


def test_documents_and_account_are_those_of_one_process(config, ahead):
    order = [3, 0, 5, 4, 1, 2]
    (alone,) = open_raw(config)
    expected = read(alone, order)
    assert len(expected[0]) > 20 and expected[2] == []
    assert read(ahead, order) == expected
    assert ahead.left_out() == alone.left_out()
    assert len(ahead.left_out()) == 3
    # Another epoch, by the same processes.
    before = list(ahead._readers._processes)
    assert read(ahead, order[::-1]) == expected[::-1]
    assert ahead._readers._processes == before


def test_a_file_that_was_not_expected_is_read_all_the_same(config, ahead):
    (alone,) = open_raw(config)
    ahead.expect([0, 1, 2])
    for file in (1, 1, 4):
        assert list(ahead.documents(file)) == list(alone.documents(file))


def test_processes_end_with_the_stream_wherever_it_stops(ahead):
    ahead.expect([0, 1, 2, 3])
    next(ahead.documents(0))
    processes = ahead._readers._processes
    ahead.close()
    assert len(processes) == 2 and not any(process.is_alive() for process in processes)


def test_documents_end_where_they_are_not_wanted(ahead):
    assert list(ahead.documents(0, lambda: False)) == []


def test_a_process_that_died_is_told_with_its_file(ahead, monkeypatch):
    monkeypatch.setattr(read_ahead, "_serve", os.abort)
    with pytest.raises(ValueError, match=r"the process that read 1\.jsonl died"):
        list(ahead.documents(1))


def test_what_goes_wrong_elsewhere_is_told_here(ahead):
    with pytest.raises(RuntimeError, match="IndexError: list index out of range"):
        list(ahead.documents(99))


def test_small_sources_are_read_by_this_process(config):
    (source,) = open_ahead(config, 2)
    assert type(source) is RawDocuments
