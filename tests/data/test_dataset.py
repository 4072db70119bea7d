"""One sample counter decides what every step sees."""

import collections
import itertools

import numpy as np
import pytest

from llama_jax.config import DataConfig
from llama_jax.data.batch import Batch
from llama_jax.data.dataset import open_dataset
from llama_jax.data.held_out import held_out_batches
from llama_jax.data.shards import SplitReader

T = 16


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr("llama_jax.data.shard_writer.WINDOW_DOCUMENTS", 7)


@pytest.fixture
def two_sources(small_windows, write_dataset, numbered_documents):
    rng = np.random.default_rng(0)
    documents = numbered_documents(rng.integers(2, 60, 60).tolist())
    return write_dataset({"books": documents[:40], "code": documents[40:]})


def opened(directory, batch_size=6, *, rows=None, **options):
    cache_bytes = options.pop("cache_bytes", 1 << 20)
    return open_dataset(
        DataConfig(directory=str(directory), seq_len=T, **options),
        vocab_size=50_000,
        batch_size=batch_size,
        rows=rows,
        cache_bytes=cache_bytes,
    )


def assert_equal(one: Batch, other: Batch):
    for name, left, right in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("num_readers", [1, 2, 3])
@pytest.mark.parametrize("num_threads", [1, 4])
def test_every_number_of_readers_sees_the_same_global_batches(
    two_sources, num_readers, num_threads
):
    reference = opened(two_sources)
    share = 6 // num_readers
    readers = [
        opened(two_sources, rows=range(r * share, (r + 1) * share)).batches(
            12, num_threads=num_threads
        )
        for r in range(num_readers)
    ]
    for step in range(2, 20):
        parts = [next(reader) for reader in readers]
        assert all(reader.next_sample == (step + 1) * 6 for reader in readers)
        joined = Batch(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
        assert_equal(joined, reference.batch(step * 6))
    for reader in readers:
        reader.close()


def test_a_run_resumes_at_any_sample_with_any_batch_size(two_sources):
    rows = opened(two_sources, batch_size=90).batch(0)
    for first, batch_size in [(0, 7), (13, 5), (89, 1), (30, 60)]:
        batch = opened(two_sources, batch_size).batch(first)
        assert_equal(batch, Batch(*(field[first : first + batch_size] for field in rows)))


def test_an_epoch_scores_every_token_that_continues_a_document_once(
    small_windows, write_dataset, numbered_documents
):
    documents = numbered_documents(np.random.default_rng(1).integers(2, 60, 50).tolist())
    dataset = opened(write_dataset({"books": documents}), batch_size=1)
    expected = collections.Counter(token for body in documents for token in body[1:].tolist())
    samples = 0
    for _ in range(2):
        seen = collections.Counter()
        while seen.total() < expected.total():
            batch = dataset.batch(samples)
            seen.update(batch.targets[batch.loss_mask == 1].tolist())
            samples += 1
        assert seen == expected
        assert dataset.epochs(samples) == {"books": pytest.approx(samples // samples * _ + 1)}


def test_epochs_differ_in_order(two_sources):
    dataset = opened(two_sources, mixture=(("books", 1.0),))
    rows = round(1 / dataset.epochs(1)["books"])
    first, second = (
        opened(two_sources, rows, mixture=(("books", 1.0),)).batch(start) for start in (0, rows)
    )
    assert (first.inputs != second.inputs).any(axis=1).mean() > 0.8


def test_seeds_differ_in_order_and_agree_with_themselves(two_sources):
    batches = [opened(two_sources, shuffle_seed=seed).batch(0) for seed in (0, 0, 1)]
    assert_equal(batches[0], batches[1])
    assert (batches[0].inputs != batches[2].inputs).any()


def test_adding_a_source_leaves_the_order_of_the_others(two_sources):
    alone = opened(two_sources, mixture=(("code", 1.0),)).batch(0)
    mixed = opened(two_sources, 200, mixture=(("books", 3.0), ("code", 1.0))).batch(0)
    in_code = {tuple(row.tolist()): i for i, row in enumerate(mixed.inputs)}
    found = [in_code[tuple(row.tolist())] for row in alone.inputs]
    assert found == sorted(found)


def test_a_bound_on_memory_changes_nothing(two_sources):
    roomy, tight = opened(two_sources), opened(two_sources, cache_bytes=1)
    for first in range(0, 300, 6):
        assert_equal(roomy.batch(first), tight.batch(first))


def test_sources_weigh_as_they_have_tokens_unless_told_otherwise(two_sources):
    dataset = opened(two_sources)
    tokens = np.array(list(dataset.tokens_per_epoch.values()))
    np.testing.assert_allclose(dataset.weights, tokens / tokens.sum(), atol=1e-3)
    told = opened(two_sources, mixture=(("code", 1.0), ("books", 3.0)))
    assert told.sources == ("code", "books")
    assert told.weights == (0.25, 0.75)
    drawn = told.epochs(8192)
    rows = {name: 1 / opened(two_sources, mixture=((name, 1.0),)).epochs(1)[name] for name in drawn}
    assert {name: round(drawn[name] * rows[name]) for name in drawn} == {
        "code": 2048,
        "books": 6144,
    }


def test_the_documents_of_a_step_are_named(two_sources):
    dataset = opened(two_sources)
    batch = dataset.batch(18)
    named = dataset.documents_of(18, 6)
    assert len(set(named)) == len(named)
    from llama_jax.data.shards import SplitReader, read_manifest

    tokens = set()
    for document in named:
        assert document.id == f"{document.source}/train/{document.number}"
        folder = two_sources / document.source
        reader = SplitReader(folder, read_manifest(folder), "train")
        ((_, body),) = reader.read_tokens([document.number])
        assert set(body.tolist()) & set(batch.inputs.ravel().tolist()) - {0, 1, 2} or len(body) == 2
        tokens |= set(body.tolist())
    assert set(batch.inputs.ravel().tolist()) <= tokens | {0}


def test_an_unknown_source_is_refused_with_a_suggestion(two_sources):
    with pytest.raises(ValueError, match=r"data\.mixture names 'boks'.*Did you mean 'books'\?"):
        opened(two_sources, mixture=(("boks", 1.0),))


def test_shards_of_another_tokenizer_are_refused(two_sources):
    (two_sources / "tokenizer.model").write_bytes(b"another tokenizer")
    with pytest.raises(ValueError, match=r"shards of 'books'.* were made with the tokenizer"):
        opened(two_sources)


def test_a_model_with_fewer_ids_than_the_tokenizer_is_refused(two_sources):
    with pytest.raises(ValueError, match=r"model\.vocab_size=49999 is below the 50000 ids"):
        open_dataset(
            DataConfig(directory=str(two_sources), seq_len=T), vocab_size=49_999, batch_size=1
        )


@pytest.mark.parametrize("token", [-5, 200_000, 1 << 30])
@pytest.mark.parametrize("place", [3, -1])  # an input, and what is a target alone
def test_a_token_outside_the_vocabulary_is_refused_with_its_document(
    write_dataset, numbered_documents, monkeypatch, token, place
):
    body = numbered_documents([T + 1])
    directory = write_dataset({"books": body}, {"books": body}, vocab_size=100_000)
    really = SplitReader.read_tokens

    def read_tokens(self, wanted):
        for number, tokens in really(self, wanted):
            changed = tokens.copy()
            changed[place] = token
            yield number, changed

    monkeypatch.setattr(SplitReader, "read_tokens", read_tokens)
    complaint = f"document 'books/{{}}/0' of books has token {token}, outside model"
    where = {"vocab_size": 100_000, "batch_size": 1}
    dataset = open_dataset(DataConfig(directory=str(directory), seq_len=T), **where)
    with pytest.raises(ValueError, match=complaint.format("train")):
        dataset.batch(0)
    held_out = held_out_batches(str(directory), "books", seq_len=T, **where)
    with pytest.raises(ValueError, match=complaint.format("heldout")):
        list(held_out)


@pytest.mark.parametrize("content", [None, "empty"])
def test_a_folder_without_shards_is_refused(tmp_path, content):
    if content:
        (tmp_path / "books").mkdir()
    with pytest.raises(ValueError, match=r"holds no source of token shards; write it with"):
        opened(tmp_path)


def test_a_manifest_that_was_cut_off_is_refused(two_sources):
    path = two_sources / "code" / "source.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"source\.json cannot be read .*; copy it again"):
        opened(two_sources)


def test_a_source_without_documents_in_the_split_is_refused(write_dataset, numbered_documents):
    directory = write_dataset({"books": numbered_documents([9])})
    with pytest.raises(ValueError, match=r"source 'books' of .* has no heldout documents"):
        open_dataset(
            DataConfig(directory=str(directory), seq_len=T),
            split="heldout",
            vocab_size=50_000,
            batch_size=1,
        )


def test_batches_go_on_for_more_than_an_epoch(two_sources):
    iterator = opened(two_sources).batches(0)
    steps = list(itertools.islice(iterator, 60))
    iterator.close()
    assert opened(two_sources).epochs(360)["books"] > 1
    assert_equal(steps[-1], opened(two_sources).batch(59 * 6))
