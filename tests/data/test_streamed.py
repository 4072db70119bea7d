"""Rows from raw documents: the same from every start, and nothing held out among them."""

import dataclasses
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import read_ahead
from data_pipelines.document import Document
from data_pipelines.read_ahead import open_ahead
from data_pipelines.sources.files import Files
from data_pipelines.stream import RawDocuments, open_raw
from llama_jax.config import BuildConfig, C4Rules, DataConfig, FilesSource, TokenizerFile
from llama_jax.data import raw
from llama_jax.data.batch import Batch
from llama_jax.data.held_out import HeldOut
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.data.streamed import StreamedDataset, open_stream
from llama_jax.data.tokenizer import load_tokenizer
from llama_jax.data.window_index import Window

SEQ_LEN, BATCH, STEPS = 32, 6, 160
WORDS = ("cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "red", "blue", "house", "river")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two folders of JSON lines and a tokenizer."""
    root, rng, texts = tmp_path_factory.mktemp("raw"), random.Random(0), []
    for source, files in (("one", 5), ("two", 3)):
        (root / source).mkdir()
        for file in range(files):
            lines = []
            for _ in range(rng.randrange(10, 40)):
                words = [rng.choice(WORDS) for _ in range(rng.randrange(3, 40))]
                texts.append(" ".join([*words, str(len(texts))]))
                lines.append(json.dumps({"text": texts[-1]}) + "\n")
            (root / source / f"{file}.jsonl").write_text("".join(lines))
    train_sentencepiece(texts, root / "small.model", vocab_size=310)
    return root


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(raw, "WINDOW_TOKENS", 700)
    monkeypatch.setattr(raw, "WINDOW_DOCUMENTS", 30)


@pytest.fixture
def open_it(corpus, tmp_path) -> Callable[..., StreamedDataset]:
    """Opens the stream as a run does; `folder` stands for its folder."""

    def opened(
        folder: str = "run",
        *,
        where: Path = corpus,
        rows=None,
        cache_bytes=1 << 20,
        workers=0,
        **changes,
    ):
        stream = BuildConfig(
            name="test",
            sources=(
                FilesSource(name="one", path=str(where / "one")),
                FilesSource(name="two", path=str(where / "two")),
            ),
            tokenizer=TokenizerFile(path=str(corpus / "small.model")),
            held_out_fraction=0.2,
        )
        stream = dataclasses.replace(stream, **changes)
        return open_stream(
            DataConfig(seq_len=SEQ_LEN, shuffle_seed=3, mixture=(("one", 3.0), ("two", 1.0))),
            stream,
            open_ahead(stream, workers) if workers else open_raw(stream),
            load_tokenizer(corpus / "small.model"),
            vocab_size=320,
            batch_size=BATCH,
            rows=rows,
            folder=tmp_path / folder,
            write=True,
            cache_bytes=cache_bytes,
        )

    return opened


def assert_same(one: Batch, other: Batch) -> None:
    for expected, got in zip(one, other, strict=True):
        np.testing.assert_array_equal(expected, got)


@pytest.fixture
def undisturbed(open_it) -> list[Batch]:
    """Batches of a run that was never stopped, over several epochs."""
    dataset = open_it("undisturbed")
    batches = [dataset.batch(step * BATCH) for step in range(STEPS)]
    dataset.close()
    epochs = dataset.epochs(STEPS * BATCH - BATCH)
    assert min(epochs.values()) > 2, epochs
    return batches


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_stopped_anywhere_sees_what_it_would_have_seen(open_it, tmp_path, undisturbed, lost):
    for step in (0, 1, 23, 24, 99, STEPS - 1):
        if lost:
            for path in (tmp_path / "run/stream").parent.glob("*.*"):
                path.unlink()
        dataset = open_it()
        assert_same(dataset.batch(step * BATCH), undisturbed[step])
        dataset.close()


def test_a_resume_reads_only_from_the_file_in_which_its_window_begins(
    open_it, tmp_path, undisturbed, monkeypatch
):
    read, documents = [], RawDocuments.documents
    monkeypatch.setattr(
        RawDocuments, "documents", lambda self, f, w: read.append(f) or documents(self, f, w)
    )
    step = STEPS - 2
    dataset = open_it("undisturbed")
    assert_same(dataset.batch(step * BATCH), undisturbed[step])
    dataset.close()
    assert 0 < len(read) < 16  # more than five epochs of eight files came before


def test_a_line_of_the_index_that_was_cut_off_does_not_count(open_it, tmp_path, undisturbed):
    index = tmp_path / "undisturbed/one.windows.jsonl"
    whole = index.read_bytes()
    for end in (whole[:-1], whole[:-10], whole + b"[9, 9,", whole[: len(whole) // 2]):
        index.write_bytes(end)
        dataset = open_it("undisturbed")
        for step in range(STEPS - 3, STEPS):
            assert_same(dataset.batch(step * BATCH), undisturbed[step])
        dataset.batch(2 * STEPS * BATCH)  # reads on, and writes in the place of what was cut off
        dataset.close()
        assert index.read_bytes().startswith(whole[:-1])
        assert all(len(json.loads(line)) == 6 for line in index.read_text().splitlines())


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_that_read_ahead_change_nothing(open_it, undisturbed, num_threads):
    dataset = open_it()
    batches = dataset.batches(0, num_threads=num_threads)
    for expected in undisturbed:
        assert_same(next(batches), expected)
    batches.close()
    dataset.close()


def test_other_processes_that_read_change_nothing(open_it, undisturbed, monkeypatch):
    monkeypatch.setattr(read_ahead, "_WORTH_BYTES", 0)
    dataset = open_it(workers=2)
    for step in (*range(12), 90, 4, STEPS - 1):
        assert_same(dataset.batch(step * BATCH), undisturbed[step])
    dataset.close()


def test_processes_share_the_rows_of_one(open_it, undisturbed):
    halves = [open_it("a", rows=range(4)), open_it("b", rows=range(4, BATCH))]
    for step, expected in enumerate(undisturbed):
        parts = [half.batch(step * BATCH) for half in halves]
        both = Batch(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))
        assert_same(both, expected)
    for half in halves:
        half.close()


def test_an_epoch_has_every_document_that_is_not_held_out_once(open_it, corpus):
    stream = BuildConfig(
        name="test",
        sources=(FilesSource(name="one", path=str(corpus / "one")),),
        tokenizer=TokenizerFile(path="-"),
        held_out_fraction=0.2,
    )
    (source,) = open_raw(stream)
    documents = [each for file in range(len(source.files)) for each in source.documents(file)]
    training = {name for name, _, held_out in documents if not held_out}
    held_out = {text for _, text, is_held_out in documents if is_held_out}
    assert training and held_out

    dataset = open_it()
    tokenizer = load_tokenizer(corpus / "small.model")
    samples = 0
    while dataset.epochs(samples).get("one", 0) < 1:
        dataset.batch(samples)
        samples += BATCH
    seen = [d.id for d in dataset.documents_of(0, samples) if d.source == "one"]
    # The step that enters the second epoch may have a few documents of it.
    assert set(seen) == training and len(seen) < 1.5 * len(training)
    scored = dataset.held_out("one")
    tokens = dict(scored.read_tokens(range(len(scored.num_tokens_of))))
    assert len(tokens) > 0 and {tokenizer.decode(each) for each in tokens.values()} <= held_out
    dataset.close()


def test_epochs_read_the_files_in_different_orders(tmp_path, undisturbed):
    lines = (tmp_path / "undisturbed/one.windows.jsonl").read_text().splitlines()
    windows = [Window(*json.loads(line)) for line in lines]
    firsts = [window.file for window in windows if window.place[1:] == (0, 0)]
    assert len(firsts) > 2 and len(set(firsts)) > 1
    assert sorted({window.epoch for window in windows}) == list(range(len(firsts)))


def test_windows_that_were_forgotten_are_read_again(open_it, undisturbed):
    dataset = open_it(cache_bytes=1)
    for step in (100, 99, 3, 130, 4, 101):
        assert_same(dataset.batch(step * BATCH), undisturbed[step])
    dataset.close()


def test_held_out_documents_are_the_same_after_a_restart(open_it, tmp_path, monkeypatch):
    read, documents = [], RawDocuments.documents
    monkeypatch.setattr(
        RawDocuments, "documents", lambda self, f, w: read.append(f) or documents(self, f, w)
    )

    def held_out() -> list[Batch]:
        dataset = open_it()
        documents = dataset.held_out("two")
        dataset.close()
        scored = HeldOut(
            documents, seq_len=SEQ_LEN, batch_size=2, vocab_size=1000, max_rows=0, rows=range(2)
        )
        return list(scored)

    first = held_out()
    for lost in (False, True):
        if lost:
            (tmp_path / "run/two.heldout.npz").unlink()
        read.clear()
        for one, other in zip(first, held_out(), strict=True):
            assert_same(one, other)
        assert bool(read) == lost


def test_damaged_files_are_skipped_and_named(open_it, corpus, tmp_path):
    where = tmp_path / "copy"
    for source in ("one", "two"):
        (where / source).mkdir(parents=True)
        for file in (corpus / source).iterdir():
            (where / source / file.name).write_bytes(file.read_bytes())
    (where / "one/0.jsonl.gz").write_bytes(b"\x1f\x8b this is no gzip")
    (where / "one/1.jsonl").write_bytes(b'{"text": "\xff\xfe"}\n{"text":\n[[[[[[[\n\0\0')
    dataset = open_it(where=where)
    for step in range(10):
        dataset.batch(step * BATCH)
    left_out = " ".join(dataset.left_out()["one"])
    dataset.close()
    assert "0.jsonl.gz" in left_out and "1.jsonl" in left_out


def test_raw_files_that_changed_are_refused_by_name(open_it, corpus, tmp_path):
    where = tmp_path / "copy"
    for source in ("one", "two"):
        (where / source).mkdir(parents=True)
        for file in (corpus / source).iterdir():
            (where / source / file.name).write_bytes(file.read_bytes())
    open_it(where=where).close()
    (where / "two/1.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(ValueError, match=r"sources\.two: 1\.jsonl changed since this run began"):
        open_it(where=where)


def test_a_window_that_is_not_what_it_was_is_refused(open_it, tmp_path):
    dataset = open_it()
    dataset.batch(0)
    dataset.close()
    index = tmp_path / "run/one.windows.jsonl"
    first, *rest = index.read_text().splitlines()
    epoch, turn, record, file, documents, tokens = json.loads(first)
    changed = json.dumps([epoch, turn, record, file, documents, tokens + 1])
    index.write_text("\n".join([changed, *rest]) + "\n")
    dataset = open_it()
    with pytest.raises(ValueError, match=r"sources\.one: window 0 began in .*\.jsonl with"):
        dataset.batch(0)
    dataset.close()


def test_reading_ahead_stops_though_filters_drop_all_that_is_left(open_it, corpus, monkeypatch):
    def endless(self, file, dropped):
        for number in itertools.count():
            kept = number < 200
            yield Document(f"{number}", f"text {number}" if kept else "no punctuation")

    class Keep:
        def keep(self, documents, dropped):
            return (each for each in documents if each.text.startswith("text"))

    monkeypatch.setattr(raw, "_BATCH_CHARACTERS", 100)
    monkeypatch.setattr(Files, "read", endless)
    monkeypatch.setattr("data_pipelines.stream.open_filters", lambda filters: [Keep()])
    dataset = open_it()
    dataset.batch(0)
    dataset.close()  # which waits for the readers


def test_a_source_of_which_filters_leave_nothing_is_refused(open_it, corpus):
    strict = FilesSource(name="one", path=str(corpus / "one"), filters=(C4Rules(),))
    two = FilesSource(name="two", path=str(corpus / "two"))
    dataset = open_it(sources=(strict, two))
    with pytest.raises(ValueError, match=r"stream\.sources\.one is empty: .*c4"):
        dataset.batch(0)
    dataset.close()
