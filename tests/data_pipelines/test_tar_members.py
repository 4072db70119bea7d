"""Of a hostile tar each source gives what is sound, in bounded memory, and names the rest."""

import gzip
import io
import tarfile
import tracemalloc

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all, tar_members
from llama_jax.config import ArxivSource, GitHubSource
from tests.data_pipelines.github_rows import MIT

PAPER = b"\\documentclass{article}\\begin{document}\\section{A} A paper.\\end{document}"
LICENCE = ("LICENSE", MIT.encode())
# What the source reads, beside what it needs for it.
KINDS = {
    "repository": (GitHubSource, "r.tar", [LICENCE, ("a.py", b"x = 1\n")]),
    "packed repository": (GitHubSource, "r.tar.gz", [LICENCE, ("a.py", b"x = 1\n")]),
    "papers": (ArxivSource, "p.tar", [("1.gz", gzip.compress(PAPER))]),
    "paper": (ArxivSource, "p.tar", [("ms.tex", PAPER)]),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def block(name, content=b"", **changes):
    """A member; changes are of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in changes.items():
        setattr(info, field, value)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.GNU_FORMAT) + content + padding


def sparse(size):
    """A file of holes, which are said to be zeros."""
    header = bytearray(block("holes.tex", type=tarfile.GNUTYPE_SPARSE))
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def collect(kind, folder, *, before=b"", behind=b"", end=bytes(1024)):
    """What the source makes of a tar with some blocks in front of sound ones, and some behind."""
    source, name, sound = KINDS[kind]
    data = before + b"".join(block(*member) for member in sound) + behind + end
    if kind == "paper":
        data = block("1.gz", gzip.compress(data)) + bytes(1024)
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    dropped = Dropped()
    return list(read_all(open_source(source(path=str(path))), dropped)), dropped


def header(kind, content, size=None):
    return block("././@header", content, type=kind, size=len(content) if size is None else size)


PAX, GLOBAL = tarfile.XHDTYPE, tarfile.XGLTYPE
BOMBS = {
    "a chain of extended headers": header(PAX, b"11 path=aa\n") * 5000,
    "a header of many lengths": header(PAX, b"2 " * 99_999 + b"=="),
    "a chain of long names": header(tarfile.GNUTYPE_LONGNAME, b"aa\0") * 5000,
    "a header that asks for all memory": header(PAX, b"", size=1 << 62),
    "a header that asks for less": header(PAX, b"", size=1 << 40),
    "a header of negative size": header(PAX, b"", size=-512),
    "a header that leads back": block("x", type=b"?", size=-1024),
    "a header that leads to itself": block("x", type=b"?", size=-512),
    "a member of the largest size": block("x", size=1 << 62),
}


@every_kind
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_given_up_and_what_came_before_it_is_kept(tmp_path, kind, bomb):
    tracemalloc.start()
    documents, dropped = collect(kind, tmp_path, behind=bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A paper is one document, and it is not whole.
    assert len(documents) == {"papers": 1, "paper": 0}.get(kind, 2)
    reasons = list(dropped.counts)
    assert "damaged" in reasons[-1] or "larger than" in reasons[-1]
    assert dropped.counts.total() == len(reasons) <= 2
    assert peak < 32 << 20


@every_kind
def test_holes_links_and_ways_out_are_left_alone(tmp_path, kind):
    secret = tmp_path / "secret.tex"
    secret.write_bytes(PAPER)
    before = b"".join(
        [
            sparse(1 << 32),
            block("link.tex", type=tarfile.SYMTYPE, linkname=str(secret)),
            block("hard.tex", type=tarfile.LNKTYPE, linkname=str(secret)),
            block("device.tex", type=tarfile.CHRTYPE),
            block("../up.tex", PAPER * 2),
            block("/abs.tex", PAPER * 2),
            block("folder", type=tarfile.DIRTYPE),
        ]
    )
    documents, dropped = collect(kind, tmp_path, before=before)
    expected, _ = collect(kind, tmp_path)
    assert [d.text for d in documents] == [d.text for d in expected]
    links = ["holes.tex", "link.tex", "hard.tex", "device.tex"]
    name = KINDS[kind][1]
    # Files of a paper are no documents of their own.
    assert dropped.examples == (
        {}
        if kind == "paper"
        else {
            "a link or a device": [f"{name}:{each}" for each in links],
            "a path out of the archive": [f"{name}:../up.tex", f"{name}:/abs.tex"],
        }
    )


@every_kind
@pytest.mark.parametrize("end", [b"", bytes(512), bytes(10240)])
def test_a_tar_ends_with_or_without_empty_blocks(tmp_path, kind, end):
    documents, dropped = collect(kind, tmp_path, end=end)
    assert len(documents) == (1 if KINDS[kind][0] is ArxivSource else 2)
    assert not dropped.counts


def test_headers_that_hold_for_all_members_take_no_memory():
    """Each adds another name; there may be any number of them between members."""
    attributes = b"".join(b"%d x%d=%s\n" % (1012, n, b"a" * 1000) for n in range(1000, 1060))
    many = b"".join(
        header(GLOBAL, attributes.replace(b" x", b" %dx" % n)[:-2]) + block(f"{n}.py", b"x")
        for n in range(100, 400)
    )
    tar = io.BytesIO(many + bytes(1024))
    tracemalloc.start()
    members = sum(1 for _ in tar_members.tar_members(tar))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert members == 300
    assert peak < 2 << 20
