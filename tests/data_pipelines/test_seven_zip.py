"""7z archives are read in place as 7-Zip makes them; hostile ones cost neither memory nor time."""

import bz2
import io
import lzma
import random
import tracemalloc
import zlib

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all, seven_zip
from llama_jax.config import StackExchangeSource
from tests.data_pipelines.raw_corpora import POSTS
from tests.data_pipelines.seven_zip_archives import NOT_READ, READ

BADGES, VOTES = b"<badges />\n" * 3, b"<votes />\n"
FILES = {"Badges.xml": BADGES, "Posts.xml": POSTS, "Votes.xml": VOTES}


def contents(data):
    file = io.BytesIO(data)
    return {
        member.name: seven_zip.open_member(file, member).read()
        for member in seven_zip.members(file)
    }


def collect(path, data):
    path.write_bytes(data)
    dropped = Dropped()
    documents = read_all(open_source(StackExchangeSource(path=str(path))), dropped)
    return {document.id: document.text for document in documents}, dropped


@pytest.mark.parametrize("kind", READ)
def test_archives_of_another_program_come_out_as_they_went_in(kind):
    # Empty.xml has no contents.
    found = contents(READ[kind])
    assert found == {name: FILES[name] for name in found}
    assert len(found) == {"BZip2, each by itself": 2, "a plain header": 1}.get(kind, 3)
    assert b"" not in found.values()


@pytest.mark.parametrize("kind", READ)
def test_questions_are_read_from_the_archive(tmp_path, kind):
    documents, dropped = collect(tmp_path / "coffee.7z", READ[kind])
    assert documents == {"coffee.7z/Posts.xml:1": "Q: Why?\n\nA question."}
    assert not dropped.counts


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_says_so_and_what_to_do(tmp_path, kind):
    documents, dropped = collect(tmp_path / "coffee.7z", NOT_READ[kind])
    assert not documents
    ((reason, names),) = dropped.examples.items()
    why = "PPMd" if kind == "PPMd" else "encryption"
    assert reason == f"7z archive that is not read ({why}): unpack it first"
    assert names[0].startswith("coffee.7z")
    assert not dropped.num_bad


def test_an_archive_without_posts_is_counted(tmp_path):
    data = archive({"Comments.xml": VOTES, "NoPosts.xml": POSTS})
    assert contents(data) == {"Comments.xml": VOTES, "NoPosts.xml": POSTS}
    assert collect(tmp_path / "a.7z", data)[1].examples == {
        "7z archive without Posts.xml": ["a.7z"]
    }


@pytest.mark.parametrize("kind", READ)
def test_damage_is_counted_and_nothing_wrong_comes_of_it(tmp_path, kind):
    whole, generator = READ[kind], random.Random(0)
    flips = ((generator.randrange(len(whole)), generator.randrange(8)) for _ in range(100))
    damaged = [whole[:end] for end in range(0, len(whole), 5)]
    for at, bit in flips:
        data = bytearray(whole)
        data[at] ^= 1 << bit
        damaged.append(bytes(data))
    for data in damaged:
        documents, dropped = collect(tmp_path / "a.7z", data)
        # The version's number, and what is beside the dump, do not matter to it.
        assert dropped.counts or documents == {"a.7z/Posts.xml:1": "Q: Why?\n\nA question."}


def number(value):
    return b"\xff" + value.to_bytes(8, "little")


def archive(files, pack=bz2.compress, method=b"\4\2\2", properties=b"", **changes):
    """A solid archive; changes are of what its header says."""
    packed = pack(b"".join(files.values()))
    told = {"names": [*files], "sizes": [*map(len, files.values())], "count": len(files)} | changes
    names = b"\0" + "".join(f"{name}\0" for name in told["names"]).encode("utf-16-le")
    header = b"\1\4\6" + number(0) + number(1) + b"\x09" + number(len(packed)) + b"\0"
    header += b"\7\x0b" + number(1) + b"\0" + number(1)
    header += bytes([len(method) | 0x20]) + method + number(len(properties)) + properties
    header += b"\x0c" + number(told.get("total", sum(told["sizes"]))) + b"\0"
    header += b"\x08\x0d" + number(told["count"])
    header += b"\x09" + b"".join(map(number, told["sizes"][:-1])) if len(files) > 1 else b""
    header += b"\0\0\5" + number(told["count"])
    header += b"\x11" + number(len(names)) + names + b"\0\0"
    header = told.get("header", header)
    where = len(packed).to_bytes(8, "little") + len(header).to_bytes(8, "little")
    where += zlib.crc32(header).to_bytes(4, "little")
    beginning = b"7z\xbc\xaf\x27\x1c\0\4" + zlib.crc32(where).to_bytes(4, "little") + where
    return beginning + packed + header


def raw_lzma2(data):
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])


LZMA2 = {"pack": raw_lzma2, "method": b"\x21"}
HOSTILE = {
    "zeros before the dump": archive({"a": bytes(100 << 20), "Posts.xml": POSTS}),
    "a dictionary of 4 GiB": archive({"Posts.xml": POSTS}, **LZMA2, properties=b"\x28"),
    "a dictionary beyond all numbers": archive({"Posts.xml": POSTS}, **LZMA2, properties=b"\xff"),
    "more files than there are": archive({"Posts.xml": POSTS}, count=1 << 16),
    "files beyond all numbers": archive({"Posts.xml": POSTS}, count=1 << 60),
    "sizes beyond all numbers": archive({"Posts.xml": POSTS}, total=1 << 62),
    "sizes that add up to more": archive(
        {"a": b"", "Posts.xml": POSTS}, sizes=[1 << 40, 9], total=9
    ),
    "a header of zeros": archive({"Posts.xml": POSTS}, header=bytes(1 << 21)),
    "a header of folders": archive({"Posts.xml": POSTS}, header=b"\1\4\6" + number(0) * 99),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_named(tmp_path, data):
    tracemalloc.start()
    documents, dropped = collect(tmp_path / "a.7z", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not documents
    assert dropped.counts.total() == 1
    assert peak < 8 << 20


def test_a_large_member_is_a_stream():
    posts = b"".join(b'<row Id="%d" />\n' % n for n in range(600_000))
    data = archive({"Badges.xml": posts, "Posts.xml": posts}, **LZMA2, properties=b"\x0c")
    file = io.BytesIO(data)
    member = seven_zip.members(file)[1]
    tracemalloc.start()
    stream = seven_zip.open_member(file, member)
    size = sum(len(piece) for piece in iter(lambda: stream.read(1 << 16), b""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == len(posts) > 10 << 20
    assert peak < 2 << 20
