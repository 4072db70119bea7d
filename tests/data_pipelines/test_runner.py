"""A build is complete or not there, is the same each time, and leaves nothing unaccounted for."""

import dataclasses
import fcntl
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.runner import build, executor
from llama_jax.config import (
    BuildConfig,
    DataConfig,
    FilesSource,
    MinHash,
    ParagraphDedup,
    TokenizerFile,
    TokenizerTraining,
)
from llama_jax.data.dataset import open_dataset
from llama_jax.data.shards import SplitReader, read_manifest
from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer
from llama_jax.recipe import to_json

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

    def advance(self, name, num_bytes):
        if name.startswith(self._die_at):
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


def test_the_bytes_do_not_depend_on_the_number_of_workers(config, tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 5000)
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 5000)
    config = dataclasses.replace(
        config, sources=(dataclasses.replace(config.sources[0], max_bytes=20_000),)
    )
    for workers in (1, 2):
        with executor(workers) as run:
            build(config, tmp_path / str(workers), Quiet(), run=run)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one == two
    assert sum("documents/" in name for name in one) > 3
    assert sum("train.array_record" in name for name in one) > 3


def test_a_kept_work_folder_spares_what_has_not_changed(config, tmp_path):
    """A changed size of shards repeats the tokenizing, and nothing before it."""
    work = tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    kept = {path: path.stat().st_ino for path in work.rglob("done.json")}
    other = dataclasses.replace(config, shard_tokens=1000)
    build(other, tmp_path / "two", Quiet(), work=work)
    changed = {path for path, inode in kept.items() if path.stat().st_ino != inode}
    assert changed
    assert {path.relative_to(work).parts[0] for path in changed} == {"tokenize"}
    build(other, tmp_path / "three", Quiet())
    assert contents(tmp_path / "two") == contents(tmp_path / "three")


def test_what_is_held_in_memory_is_a_quarter_of_a_bucket(config, tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 20_000)
    work = tmp_path / "work"
    build(config, tmp_path / "out", Quiet(), work=work)
    collected = json.loads((work / "collect/files/00000/done.json").read_text())["result"]
    buckets = len(list((work / "gather/files").iterdir()))
    assert collected["num_buckets"] == 4 * buckets
    assert buckets > 1


def test_a_kept_work_folder_spares_the_search_for_duplicates(config, tmp_path):
    source = dataclasses.replace(
        config.sources[0], dedup=(ParagraphDedup(), MinHash(bands=2, rows=4))
    )
    config, work = dataclasses.replace(config, sources=(source,)), tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    kept = {path: path.stat().st_ino for path in work.rglob("done.json")}
    build(config, tmp_path / "two", Quiet(), work=work)
    assert kept == {path: path.stat().st_ino for path in work.rglob("done.json")}


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


def test_a_changed_input_is_noticed(config, tmp_path):
    work = tmp_path / "work"
    build(config, tmp_path / "one", Quiet(), work=work)
    (tmp_path / "texts" / "000.txt").write_text("quite another text\n")
    build(config, tmp_path / "two", Quiet(), work=work)
    found = dict(
        read_split(tmp_path / "two", "files", "train")
        + read_split(tmp_path / "two", "files", "heldout")
    )
    assert found["000.txt"] == "quite another text\n"


def test_more_damage_than_allowed_ends_the_build_and_names_it(config, tmp_path):
    for number in range(2):
        (tmp_path / "texts" / f"bad{number}.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(
        ValueError, match=r"--max-bad-records=1: there are 2 damaged .* in files, such as bad0"
    ):
        build(config, tmp_path / "out", Quiet(), max_bad_records=1)
    summary, _ = build(config, tmp_path / "out", Quiet(), max_bad_records=2)
    assert sum(summary["sources"]["files"]["dropped"].values()) == 2


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_byte(config, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(to_json(config))
    command = [sys.executable, "-m", "llama_jax.cli.main", "data", "build", str(recipe)]
    command += ["--workers", "2", "--out"]
    started = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    seconds = time.monotonic() - started
    kills, moments = 0, random.Random(0)
    while kills < 10:
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.1, 1.0) * seconds)
            # It was quicker than the moment chosen: begin anew.
            shutil.rmtree(tmp_path / "killed")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


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


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_build_does_not_write_where_it_reads(config, tmp_path, option):
    folders = {"--out": tmp_path / "out", "--work": tmp_path / "work"}
    folders[option] = tmp_path / "texts" / "more" / "folders"
    with pytest.raises(
        ValueError, match=rf"{option} .*folders is inside sources\.files\.path=.*text"
    ):
        build(config, folders["--out"], Quiet(), work=folders["--work"])
    folders[option] = tmp_path / "file"
    folders[option].write_text("")
    with pytest.raises(ValueError, match=rf"{option} .*file is a file; give a folder"):
        build(config, folders["--out"], Quiet(), work=folders["--work"])


def test_a_tokenizer_that_cannot_be_read_is_refused_before_anything_is_collected(config, tmp_path):
    (tmp_path / "bad.model").write_bytes(b"no model")
    for name, complaint in {
        "none.model": "there is no such file",
        "bad.model": "is no Sentence",
    }.items():
        wrong = dataclasses.replace(config, tokenizer=TokenizerFile(path=str(tmp_path / name)))
        reporter = Quiet()
        with pytest.raises(ValueError, match=complaint):
            build(wrong, tmp_path / "out", reporter)
        assert not reporter.stages


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


def test_near_duplicates_and_repeated_paragraphs_are_removed_for_any_number_of_workers(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr("data_pipelines.plan._MIN_BUCKET_BYTES", 20_000)
    folder = tmp_path / "texts"
    long = " ".join(f"{word}{number}" for number in range(40) for word in WORDS.split()[:8])
    (folder / "long.txt").write_text(long + " and so it ended\n")
    (folder / "alike.txt").write_text(long + " and so\n")
    footer = "This page was made by someone who puts this line under every page."
    for number in range(3):
        words = " ".join(f"{word}{'xyz'[number]}" for word in WORDS.split())
        (folder / f"footer{number}.txt").write_text(f"{words}\n{footer}\n")
    source = dataclasses.replace(
        config.sources[0], dedup=(MinHash(bands=5, rows=4), ParagraphDedup(min_characters=20))
    )
    config = dataclasses.replace(config, sources=(source,))
    build(config, tmp_path / "1", Quiet())
    with executor(2) as run:
        build(config, tmp_path / "2", Quiet(), run=run)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    found = dict(
        read_split(tmp_path / "1", "files", "train")
        + read_split(tmp_path / "1", "files", "heldout")
    )
    assert "long.txt" in found
    assert "alike.txt" not in found
    assert sum(footer in text for text in found.values()) == 1
    assert all(f"footer{number}.txt" in found for number in range(3))
    files = json.loads((tmp_path / "1" / "report.json").read_text())["sources"]["files"]
    assert files["dropped"]["near duplicate"]["count"] == sum(
        (documents - 1) * groups for documents, groups in files["duplicate_groups"]
    )
    assert [p["name"] for p in files["passages"]] == [
        "read",
        "exact duplicates",
        "near duplicates",
        "paragraphs",
    ]


def test_a_build_leaves_a_page_about_itself(config, tmp_path):
    build(config, tmp_path / "out", Quiet())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "100% of 200 documents are kept" in page
    assert page.endswith("</html>\n")


@pytest.mark.slow
def test_beam_gives_the_same_bytes(config, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'llama-jax[beam]'")
    local = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    build(config, tmp_path / "1", Quiet())
    with executor(1, "beam", local) as run:
        build(config, tmp_path / "2", Quiet(), run=run)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_beam_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    refused = pytest.raises(ValueError, match=r"--runner=beam needs Apache Beam: pip install")
    with refused, executor(1, "beam"):
        pass


def test_a_full_disk_ends_the_build_by_name_and_what_is_done_is_kept(config, small_disk, tmp_path):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(3_950_000))
    for workers in (1, 2):
        refused = pytest.raises(
            ValueError, match=r"the disk of .*disk/out/.build.* is full.*make room"
        )
        with refused, executor(workers) as run:
            build(config, small_disk / "out", Quiet(), run=run)
    filler.unlink()
    build(config, small_disk / "out", Quiet())
    build(config, tmp_path / "elsewhere", Quiet())
    assert contents(small_disk / "out") == contents(tmp_path / "elsewhere")
