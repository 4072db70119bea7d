"""Tars and checkouts of repositories: read as they lie there, and no farther."""

import gzip
import io
import tarfile

import pytest

from data_pipelines import plan
from data_pipelines.sources import open_source, repository_archive, tar_members
from llama_jax.config import GitHubSource
from tests.data_pipelines.github_rows import MIT, collect, row, write_rows


def tar_of(path, members, mode="w:gz"):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", "w:"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2")]
)
def test_a_tar_is_a_repository_under_the_licence_in_it(tmp_path, suffix, mode):
    members = {
        "n-1/a.py": b"a = 1\n",
        "n-1/sub/b.py": b"\xef\xbb\xbfb\n",
        "n-1/LICENSE": MIT.encode(),
    }
    tar_of(tmp_path / "owner" / f"n.{suffix}", members, mode)
    documents, dropped = collect(tmp_path)
    assert {d.id: d.text for d in documents} == {
        f"owner/n.{suffix}:n-1/a.py": "a = 1\n",
        f"owner/n.{suffix}:n-1/sub/b.py": "b\n",
        f"owner/n.{suffix}:n-1/LICENSE": MIT,
    }
    assert {dict(d.metadata)["repository"] for d in documents} == {"owner/n"}
    assert not dropped.counts


def test_what_is_no_text_of_a_tar_is_counted_and_no_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(repository_archive, "MAX_RECORD_BYTES", 2000)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    members = {
        "LICENSE": MIT.encode(),
        "link": str(secret),
        "../up.py": b"x",
        "/abs.py": b"x",
        "latin.py": b"\xe9\xe8",
        "picture": b"a\0b",
        "long.py": b"x" * 2001,
        "last.py": b"x",
    }
    tar_of(tmp_path / "a" / "r.tar.gz", members)
    documents, dropped = collect(tmp_path / "a")
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE", "r.tar.gz:last.py"]
    assert dropped.examples == {
        "a link or a device": ["r.tar.gz:link"],
        "a path out of the archive": ["r.tar.gz:../up.py", "r.tar.gz:/abs.py"],
        "not UTF-8": ["r.tar.gz:latin.py"],
        "no text: has NUL characters": ["r.tar.gz:picture"],
        "longer than 2,000 bytes": ["r.tar.gz:long.py"],
    }


def write_checkout(folder, name):
    for path, text in {"LICENSE": MIT, "src/a.py": f"# {name}\n", ".git/config": "[core]"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.mark.parametrize("below", ["", "owner/name"])
def test_a_checkout_is_a_repository_under_the_licence_in_it(tmp_path, below):
    root = tmp_path / "all"
    checkout = root / below
    write_checkout(checkout, "a")
    write_checkout(checkout / "inner", "b")
    write_rows(checkout / "data.jsonl", row("nobody/looks-here.py"))
    secret = tmp_path / "secret.py"
    secret.write_text("password = 1\n")
    (checkout / "link.py").symlink_to(secret)
    (checkout / "folder").symlink_to(tmp_path)
    documents, dropped = collect(root)
    name = below or "all"
    assert [d.id for d in documents] == [
        f"{name}:{path}"
        for path in ("LICENSE", "data.jsonl", "inner/LICENSE", "inner/src/a.py", "src/a.py")
    ]
    assert dict(documents[-1].metadata)["licence"] == "MIT"
    assert dropped.counts == {"a link or a device": 2}


def test_checkouts_stand_beside_other_raw_files_and_changes_in_them_are_noticed(tmp_path):
    write_checkout(tmp_path / "owner" / "name", "a")
    write_rows(tmp_path / "rows.jsonl", row("x.py"))
    (raw, rows) = open_source(GitHubSource(path=str(tmp_path))).files()
    assert (raw.name, rows.name) == ("owner/name", "rows.jsonl")
    before = plan.fingerprint(raw)
    (tmp_path / "owner/name/src/a.py").write_text("# longer\n")
    assert plan.fingerprint(raw) != before


def test_a_tar_cut_short_gives_what_came_before(tmp_path):
    path = tar_of(tmp_path / "a" / "r.tar", {"LICENSE": MIT.encode(), "b.py": b"x" * 2000}, "w:")
    path.write_bytes(path.read_bytes()[:2100])
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar:LICENSE"]
    assert list(dropped.counts) == ["file damaged, the rest of it is lost (ReadError)"]


def test_a_damaged_header_is_no_end_of_the_tar(tmp_path):
    members = {"LICENSE": MIT.encode(), "b.py": b"x", "c.py": b"x"}
    path = tar_of(tmp_path / "a" / "r.tar.gz", members)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[1024 + 150] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE"]
    assert dropped.examples == {"file damaged, the rest of it is lost (EOFError)": ["r.tar.gz"]}


def test_a_bomb_of_a_tar_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members, "_MAX_TAR_BYTES", 1 << 20)
    members = {"LICENSE": MIT.encode(), "zeros.py": b"\0" * (2 << 20), "b.py": b"x"}
    path = tar_of(tmp_path / "a" / "r.tar.gz", members)
    documents, dropped = collect(path)
    assert [d.id for d in documents] == ["r.tar.gz:LICENSE"]
    assert "larger than an archive may be, the rest of it is lost" in dropped.counts
