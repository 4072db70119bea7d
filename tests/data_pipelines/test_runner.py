"""A build is complete or not there, is the same each time, and leaves nothing unaccounted for."""

import dataclasses
import fcntl
import json
import shutil
from pathlib import Path

import pytest

from data_pipelines.runner import build
from data_pipelines.stages.shuffle import Shuffle
from llama_jax.config import BuildConfig, DataConfig, FilesSource, TokenizerFile, TokenizerTraining
from llama_jax.data.dataset import open_dataset
from llama_jax.data.shards import SplitReader, read_manifest
from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

WORDS = "the a quick brown fox jumps over lazy dogs while seven wise owls look on from old trees"


def texts(count, salt=0):
    words = WORDS.split()
    for i in range(count):
        chosen = [words[(i * 7 + j * j + salt) % len(words)] for j in range(20 + i % 30)]
        yield f"document {salt} {i}\n" + " ".join(chosen) + ".\n"


class Quiet:
    """Hears of progress; dies at a stage when told to."""

    def __init__(self, die_at="never"):
        self.stages, self._die_at = [], die_at

    def stage(self, name, total_bytes):
        self.stages.append(name)

    def advance(self, num_bytes):
        assert num_bytes > 0
        if self.stages[-1].startswith(self._die_at):
            raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts(200)):
        (folder / f"{number:03d}.txt").write_text(text)
    return BuildConfig(
        name="test",
        sources=(FilesSource(path=str(folder)),),
        tokenizer=TokenizerTraining(vocab_size=330, sample_bytes=20_000),
        held_out_fraction=0.2,
        shard_tokens=3000,
    )


def read_split(out, source, split):
    """Ids and texts of a split, in order."""
    manifest = read_manifest(out / source)
    tokenizer = load_tokenizer(find_tokenizer(out))
    reader = SplitReader(out / source, manifest, split)
    numbers = range(manifest.splits[split].num_documents)
    return [
        (reader.document_id(number), tokenizer.decode(tokens))
        for number, tokens in reader.read_tokens(numbers)
    ]


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "dataset_info.json"
    }


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
    assert 7500 < sum(split["text_bytes"] for split in splits.values()) <= 8000
    assert splits["heldout"]["documents"] < splits["train"]["documents"]
    for split in ("train", "heldout"):
        some = read_split(tmp_path / "some", "files", split)
        assert some == read_split(tmp_path / "all", "files", split)[: len(some)]
        assert some


@pytest.mark.parametrize("stage", ["collect", "tokenize"])
def test_a_killed_build_can_be_run_again(config, tmp_path, stage):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(config, out, Quiet(die_at=stage))
    assert not (out / "build.json").exists()
    build(config, out, Quiet())
    build(config, tmp_path / "whole", Quiet())
    assert contents(out) == contents(tmp_path / "whole")


def test_a_build_killed_while_its_parts_are_put_in_place_can_be_run_again(config, tmp_path):
    out = tmp_path / "out"
    build(config, out, Quiet())
    before = contents(out)
    (out / "build.json").unlink()
    (out / "tokenizer.model").unlink()
    build(config, out, Quiet())
    assert contents(out) == before


def test_a_finished_build_is_recognised(config, tmp_path):
    first, _ = build(config, tmp_path / "out", Quiet())
    reporter = Quiet()
    second, before = build(config, tmp_path / "out", reporter)
    assert before
    assert not reporter.stages
    assert json.dumps(second) == json.dumps(first)


def test_another_config_in_the_same_folder_is_refused_field_by_field(config, tmp_path):
    build(config, tmp_path / "out", Quiet())
    other = dataclasses.replace(config, held_out_fraction=0.1, shard_tokens=999)
    with pytest.raises(
        ValueError, match=r"held_out_fraction: 0\.2 -> 0\.1; shard_tokens: 3000 -> 999\. Build into"
    ):
        build(other, tmp_path / "out", Quiet())


def test_a_folder_with_other_files_is_refused_and_left_alone(config, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty: it has thesis\.txt"):
        build(config, out, Quiet())
    assert (out / "thesis.txt").read_text() == "years of work"


def test_two_builds_into_one_folder_are_refused(config, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(ValueError, match="another build is writing there"):
            build(config, out, Quiet())


def test_a_corpus_without_documents_is_refused_with_the_reasons(config, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{cut\n" * 3 + "[]\n")
    empty = dataclasses.replace(
        config,
        sources=(FilesSource(path=str(path)),),
    )
    with pytest.raises(
        ValueError, match=r"sources\.files is empty: .*left out: 3 no valid JSON, 1 no field 'text'"
    ):
        build(empty, tmp_path / "out", Quiet())


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


def test_a_source_whose_folder_is_gone_is_refused_by_name(config, tmp_path):
    out = tmp_path / "out"
    build(config, out, Quiet())
    shutil.copytree(out / "files", out / "other")
    shutil.rmtree(out / "files")
    with pytest.raises(ValueError, match=r"out/files lacks source\.json"):
        open_dataset(DataConfig(directory=str(out), seq_len=32), vocab_size=330, batch_size=1)


def test_a_build_killed_at_any_rename_cannot_be_opened(config, tmp_path, monkeypatch):
    """Each rename in turn is the last thing that a build does; the next build repairs it."""
    out, data = tmp_path / "out", DataConfig(directory=str(tmp_path / "out"), seq_len=32)
    rename, done = Path.rename, []

    def die_after(count):
        def renamed(self, target):
            if Path(target).parent == out:
                if len(done) >= count:
                    raise KeyboardInterrupt
                done.append(target)
            return rename(self, target)

        return renamed

    for count in range(2):
        done.clear()
        monkeypatch.setattr(Path, "rename", die_after(count))
        with pytest.raises(KeyboardInterrupt):
            build(config, out, Quiet())
        with pytest.raises(ValueError, match="data build"):
            open_dataset(data, vocab_size=330, batch_size=1)
    monkeypatch.setattr(Path, "rename", rename)
    _, before = build(config, out, Quiet())
    assert not before
    open_dataset(data, vocab_size=330, batch_size=1)


def test_the_shuffle_is_the_same_through_any_number_of_buckets(tmp_path):
    from data_pipelines.document import Document

    documents = [Document(str(number), text) for number, text in enumerate(texts(300))]
    orders = []
    for size_bytes in (0, 64 << 30):
        shuffle = Shuffle(tmp_path / str(size_bytes), size_bytes=size_bytes)
        assert sum(shuffle.write(documents)) == shuffle.num_bytes
        hashed = list(shuffle.read(max_bytes=1 << 30))
        orders.append([found.document for found in hashed])
        digests = [found.digest for found in hashed]
        assert digests == sorted(digests)
        shuffle.remove()
        assert not (tmp_path / str(size_bytes)).exists()
    assert orders[0] == orders[1]
    assert set(orders[0]) == set(documents)
