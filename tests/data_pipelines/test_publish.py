"""A dataset behind a URL is the one that is built here, complete or not there yet."""

import dataclasses

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data_pipelines import publish
from data_pipelines.publish import build_and_publish
from data_pipelines.runner import build
from llama_jax.cli.data import main as data
from llama_jax.config import FilesSource
from llama_jax.recipe import to_json
from tests.data_pipelines.small_build import Quiet, contents

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def url(tmp_path, monkeypatch):
    """An empty folder behind a URL; one file is sent at a time."""
    monkeypatch.setattr(publish, "_THREADS", 1)
    yield f"memory:/{tmp_path}/out"
    MEMORY.rm(str(tmp_path), recursive=True)


def there(url):
    root = MEMORY._strip_protocol(url)
    return {path[len(root) + 1 :]: MEMORY.cat_file(path) for path in MEMORY.find(root)}


@pytest.fixture
def sent(monkeypatch):
    """Files as they are sent; `sent.most` of them get through."""

    class Sent(list):
        most, error = 1 << 30, KeyboardInterrupt

    names, put_file = Sent(), MemoryFileSystem.put_file

    def put(self, local, remote, **options):
        if len(names) == names.most:
            raise names.error
        names.append(remote)
        put_file(self, local, remote, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    return names


def test_what_arrives_is_what_a_build_leaves_here(config, tmp_path, url, sent):
    build(config, tmp_path / "here", Quiet())
    summary, before = build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    assert not before
    here = contents(tmp_path / "here")
    del here[".lock"]
    assert {n: d for n, d in there(url).items() if not n.endswith("dataset_info.json")} == here
    assert sent[-1].endswith("build.json")
    assert not list((tmp_path / "work").rglob("build.json"))
    reporter = Quiet()
    assert build_and_publish(config, url, reporter, work=tmp_path / "other") == (summary, True)
    assert not reporter.stages


def test_the_command_sends_it_too(config, tmp_path, url, capsys):
    recipe, work = tmp_path / "recipe.json", tmp_path / "work"
    recipe.write_text(to_json(config))
    command = ["build", str(recipe), "--out", url, "--work", str(work), "--workers", "1"]
    for told in ("", f"{url} is already built"):
        assert data(command) == 0
        said = capsys.readouterr()
        assert told in said.err and f"{url}: tokenizer sentencepiece" in said.out
    assert "build.json" in there(url)


def test_a_build_stopped_while_it_is_sent_goes_on_with_what_is_missing(config, tmp_path, url, sent):
    build_and_publish(config, f"{url}/whole", Quiet(), work=tmp_path / "work")
    names = [name.rpartition("/whole/")[2] for name in sent]
    # Written anew, the dataset is another one: its tasks are kept, and nothing else.
    for most in (0, 1, len(names) // 2, len(names) - 1):
        sent.clear()
        sent.most = most
        target = f"{url}/{most}"
        with pytest.raises(KeyboardInterrupt):
            build_and_publish(config, target, Quiet(), work=tmp_path / "work")
        assert "build.json" not in there(target)
        sent.most = 1 << 30
        build_and_publish(config, target, Quiet(), work=tmp_path / "work")
        assert sorted(name.rpartition(f"/{most}/")[2] for name in sent) == sorted(names)
        assert there(target) == there(f"{url}/whole")


def test_a_file_that_arrived_in_part_is_sent_again(config, tmp_path, url, sent):
    sent.most = 3
    with pytest.raises(KeyboardInterrupt):
        build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    MEMORY.pipe_file(sent[0], b"half")
    sent.most = 1 << 30
    build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    assert sent.count(sent[0]) == 2
    assert MEMORY.size(sent[0]) > 4


def test_what_another_dataset_left_on_its_way_is_removed(config, tmp_path, url, sent):
    other = dataclasses.replace(
        config, sources=(FilesSource(name="others", path=config.sources[0].path),)
    )
    sent.most = 5
    with pytest.raises(KeyboardInterrupt):
        build_and_publish(other, url, Quiet(), work=tmp_path / "work")
    sent.most = 1 << 30
    build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    build_and_publish(config, f"{url}/beside", Quiet(), work=tmp_path / "work")
    found = {name: data for name, data in there(url).items() if not name.startswith("beside/")}
    assert found == there(f"{url}/beside")


def test_other_files_and_datasets_are_refused_and_left_alone(config, tmp_path, url):
    MEMORY.pipe_file(f"{url}/thesis.txt", b"years of work")
    with pytest.raises(ValueError, match=r"--out=memory://.* is not empty: it has thesis\.txt"):
        build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    assert there(url) == {"thesis.txt": b"years of work"}
    build_and_publish(config, f"{url}/1", Quiet(), work=tmp_path / "work")
    before = there(f"{url}/1")
    other = dataclasses.replace(config, shard_tokens=999)
    with pytest.raises(ValueError, match=r"another config: shard_tokens: 3000 -> 999"):
        build_and_publish(other, f"{url}/1", Quiet(), work=tmp_path / "work")
    assert there(f"{url}/1") == before


def test_a_url_that_cannot_be_written_is_told_and_what_is_built_is_kept(
    config, tmp_path, url, sent
):
    sent.most, sent.error = 2, OSError("no more money")
    with pytest.raises(ValueError, match=r"cannot be written \(OSError: no more money\).*is kept"):
        build_and_publish(config, url, Quiet(), work=tmp_path / "work")
    assert (tmp_path / "work/publish/dataset/build.json").is_file()


def test_a_build_does_not_write_to_the_url_that_it_reads(config, tmp_path):
    source = FilesSource(path="memory://corpus")
    inside = dataclasses.replace(config, sources=(source,))
    with pytest.raises(ValueError, match=r"--out memory://corpus/out is inside sources\.files"):
        build_and_publish(inside, "memory://corpus/out", Quiet(), work=tmp_path)


def test_urls_that_cannot_be_opened_are_refused_before_anything_is_built(config, tmp_path):
    with pytest.raises(ValueError, match=r"--out=nowhere://bucket: .*nowhere"):
        build_and_publish(config, "nowhere://bucket", Quiet(), work=tmp_path)
    with pytest.raises(ValueError, match=r"--out=s3://bucket: .* say which with --work"):
        data(["build", "demo", "--out", "s3://bucket"])
