"""A build has every document once, is the same each time, and accounts for what is left out."""

import dataclasses
import json
import shutil
import typing

from data_pipelines.runner import build
from llama_jax.config import (
    DataConfig,
    FilesSource,
    MinHash,
    ParagraphDedup,
    Source,
    TokenizerFile,
)
from llama_jax.data.dataset import open_dataset
from tests.data_pipelines.small_build import Quiet, contents, read_split, texts


def test_every_document_comes_out_once_with_its_text(config, tmp_path):
    out = tmp_path / "out"
    summary, before = build(config, out, Quiet())
    assert not before
    train, held_out = (read_split(out, "files", split) for split in ("train", "heldout"))
    expected = {f"{number:03d}.txt": text for number, text in enumerate(texts(200))}
    assert dict(train + held_out) == expected
    assert len(train) + len(held_out) == 200
    assert 20 <= len(held_out) <= 60
    splits = summary["sources"]["files"]["splits"]
    assert splits["train"]["documents"] == len(train)
    assert splits["train"]["shards"] > 1
    total_bytes = sum(len(text.encode()) for text in expected.values())
    assert sum(split["text_bytes"] for split in splits.values()) == total_bytes
    assert [name for name, _ in train] != sorted(name for name, _ in train)


def test_a_build_trains_a_tokenizer_and_opens_for_training(config, tmp_path):
    summary, _ = build(config, tmp_path / "out", Quiet())
    assert summary["tokenizer"]["vocab_size"] == 330
    data = DataConfig(directory=str(tmp_path / "out"), seq_len=32)
    batch = open_dataset(data, vocab_size=330, batch_size=4).batch(0)
    assert batch.loss_mask.sum() > 100


def test_two_builds_agree_in_every_byte(config, tmp_path):
    for name in ("one", "two"):
        build(config, tmp_path / name, Quiet())
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert any("array_record" in name for name in one)


def test_what_is_held_in_memory_is_a_quarter_of_a_bucket(config, tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 20_000)
    work = tmp_path / "work"
    build(config, tmp_path / "out", Quiet(), work=work)
    collected = json.loads((work / "collect/files/00000/done.json").read_text())["result"]
    buckets = len(list((work / "gather/files").iterdir()))
    assert collected["num_buckets"] == 4 * buckets
    assert buckets > 1


def test_sources_with_other_kinds_of_duplicates_go_through_them_in_their_own_order(
    config, tmp_path
):
    """Together or each alone: the same documents."""
    minhash, paragraphs = MinHash(bands=2, rows=4), ParagraphDedup(min_characters=20)
    kinds = {"a": (minhash, paragraphs), "b": (paragraphs,), "c": (), "d": (paragraphs, minhash)}
    path = config.sources[0].path
    sources = [FilesSource(name=name, path=path, dedup=kind) for name, kind in kinds.items()]
    build(dataclasses.replace(config, sources=tuple(sources)), tmp_path / "all", Quiet())
    together = contents(tmp_path / "all" / "documents")
    for source in sources:
        alone = tmp_path / source.name
        build(dataclasses.replace(config, sources=(source,)), alone, Quiet())
        (file,) = contents(alone / "documents").items()
        assert file in together.items()


def test_the_order_and_the_split_depend_on_the_text_alone(config, tmp_path):
    """Documents keep their split and their order under other names and in other company."""
    build(config, tmp_path / "one", Quiet())
    folder = tmp_path / "moved"
    folder.mkdir()
    for number, text in enumerate([*texts(200), *texts(20, salt=5)]):
        (folder / f"x{999 - number}.txt").write_text(text)
    moved = dataclasses.replace(
        config,
        sources=(FilesSource(path=str(folder)),),
        tokenizer=TokenizerFile(path=str(tmp_path / "one" / "tokenizer.model")),
    )
    build(moved, tmp_path / "two", Quiet())
    for split in ("train", "heldout"):
        before = [text for _, text in read_split(tmp_path / "one", "files", split)]
        after = [text for _, text in read_split(tmp_path / "two", "files", split)]
        assert [text for text in after if text in set(before)] == before


def test_repeated_texts_are_kept_once_and_counted(config, tmp_path):
    folder = tmp_path / "texts"
    for number in range(3):
        shutil.copy(folder / "007.txt", folder / f"copy{number}.txt")
    summary, _ = build(config, tmp_path / "out", Quiet())
    everything = [
        name
        for split in ("train", "heldout")
        for name, _ in read_split(tmp_path / "out", "files", split)
    ]
    assert len(everything) == 200
    assert "007.txt" in everything
    dropped = summary["sources"]["files"]
    assert dropped["dropped"] == {"the same text as another document": 3}
    assert dropped["dropped_examples"]["the same text as another document"] == [
        "copy0.txt",
        "copy1.txt",
        "copy2.txt",
    ]


def test_a_limit_on_bytes_takes_the_first_documents_by_hash(config, tmp_path):
    build(config, tmp_path / "all", Quiet())
    source = FilesSource(path=config.sources[0].path, max_bytes=8000)
    limited = dataclasses.replace(
        config,
        sources=(source,),
        tokenizer=TokenizerFile(path=str(tmp_path / "all" / "tokenizer.model")),
    )
    summary, _ = build(limited, tmp_path / "some", Quiet())
    splits = summary["sources"]["files"]["splits"]
    kept = sum(split["documents"] for split in splits.values())
    assert summary["sources"]["files"]["dropped"] == {"beyond max_bytes": 200 - kept}
    assert 7500 < sum(split["text_bytes"] for split in splits.values()) <= 8000
    assert splits["heldout"]["documents"] < splits["train"]["documents"]
    for split in ("train", "heldout"):
        some = read_split(tmp_path / "some", "files", split)
        assert some == read_split(tmp_path / "all", "files", split)[: len(some)]
        assert some


def test_all_of_a_source_is_taken_unless_a_limit_is_asked_for():
    assert all(source().max_bytes == 0 for source in typing.get_args(Source))


def test_several_sources_share_a_tokenizer(config, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    for number, text in enumerate(texts(50, salt=3)):
        (folder / f"{number}.txt").write_text(text)
    two = dataclasses.replace(
        config, sources=(*config.sources, FilesSource(name="more", path=str(folder)))
    )
    summary, _ = build(two, tmp_path / "out", Quiet())
    assert list(summary["sources"]) == ["files", "more"]
    data = DataConfig(directory=str(tmp_path / "out"), seq_len=32)
    assert set(open_dataset(data, vocab_size=330, batch_size=1).sources) == {"files", "more"}


def test_a_build_leaves_a_page_about_itself(config, tmp_path):
    build(config, tmp_path / "out", Quiet())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "100% of 200 documents are kept" in page
    assert page.endswith("</html>\n")
