"""Archives in a WACZ are read where they are; what is wrong with one costs that one."""

import gzip
import zipfile

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.config import CommonCrawlSource
from tests.data_pipelines.raw_corpora import answer, warc_record

pytest.importorskip("fastwarc", reason="needs the extra data")
TEXTS = [f"This is the text of page number {number}, worth reading." for number in range(4)]
RECORDS = [warc_record("response", answer(text)) for text in TEXTS]
MEMBERS = [gzip.compress(record) for record in RECORDS]


def collect(path):
    dropped = Dropped()
    return list(read_all(open_source(CommonCrawlSource(path=str(path))), dropped)), dropped


def texts(documents):
    return [document.text for document in documents]


def wacz(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_archives_in_a_wacz_are_read_in_place(tmp_path):
    wacz(
        tmp_path / "a.wacz",
        {"archive/b.warc.gz": b"".join(MEMBERS), "archive/a.warc": RECORDS[0], "x": "y"},
    )
    documents, dropped = collect(tmp_path)
    assert texts(documents) == [TEXTS[0], *TEXTS]
    assert documents[0].id == "a.wacz/archive/a.warc:0"
    assert documents[2].id == f"a.wacz/archive/b.warc.gz:{len(MEMBERS[0])}"
    assert not dropped.counts


def test_a_hostile_wacz_is_named_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    evil = {"archive/../../evil.warc": RECORDS[0], "/etc/evil.warc": RECORDS[0]}
    wacz(folder / "a.wacz", evil)
    bomb = {"archive/bomb.warc": warc_record("response", bytes(30_000_000))}
    wacz(folder / "b.wacz", bomb, compression=zipfile.ZIP_DEFLATED)
    (folder / "c.wacz").write_bytes(b"PK no zip")
    (folder / "d.wacz").write_bytes((folder / "a.wacz").read_bytes()[:-30])
    documents, dropped = collect(folder)
    assert not documents
    assert dropped.examples["WACZ: archive outside archive/"] == [
        "a.wacz//etc/evil.warc",
        "a.wacz/archive/../../evil.warc",
    ]
    assert dropped.examples["WACZ: archive expands too much"] == ["b.wacz/archive/bomb.warc"]
    assert dropped.examples["file damaged, the rest of it is lost (BadZipFile)"] == [
        "c.wacz",
        "d.wacz",
    ]
    assert [path.name for path in tmp_path.rglob("*")].count("evil.warc") == 0


def with_bytes(data, local, central, change):
    """A zip with other bytes in the first entry, in its own header and in the directory."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = data.find(magic) + offset
        changed[at] = change(changed[at])
    return bytes(changed)


@pytest.mark.parametrize(
    ("local", "central", "change", "reason"),
    [
        pytest.param(6, 8, lambda flags: flags | 1, "WACZ: archive encrypted", id="encrypted"),
        pytest.param(6, 8, lambda flags: flags | 32, "NotImplementedError", id="patched"),
        pytest.param(6, 8, lambda flags: flags | 64, "NotImplementedError", id="strong encryption"),
        pytest.param(8, 10, lambda _: 97, "neither stored nor deflated", id="unknown method"),
        pytest.param(8, 10, lambda _: 14, "neither stored nor deflated", id="LZMA"),
        pytest.param(8, 10, lambda _: 12, "neither stored nor deflated", id="bzip2"),
        pytest.param(8, 10, lambda _: 8, "WACZ: archive damaged", id="no deflate"),
        pytest.param(31, 47, lambda _: 0xFF, "WACZ: archive outside", id="no ASCII name"),
        pytest.param(14, 16, lambda crc: crc ^ 1, "WACZ: archive damaged", id="checksum"),
    ],
)
def test_an_archive_of_a_wacz_that_cannot_be_read_costs_itself_alone(
    tmp_path, local, central, change, reason
):
    wacz(tmp_path / "a.wacz", {"archive/a.warc": RECORDS[0], "archive/b.warc": RECORDS[1]})
    data = (tmp_path / "a.wacz").read_bytes()
    (tmp_path / "a.wacz").write_bytes(with_bytes(data, local, central, change))
    documents, dropped = collect(tmp_path)
    assert texts(documents)[-1] == TEXTS[1]
    (found,) = dropped.counts
    assert reason in found
    assert dropped.counts[found] == 1


@pytest.mark.parametrize(
    "places",
    [
        pytest.param([(7, 9, lambda flags: flags | 8), (31, 47, lambda _: 0xFF)], id="name"),
        pytest.param([(4, 6, lambda _: 99)], id="version"),
    ],
)
def test_a_directory_of_a_wacz_that_is_not_understood_is_damage(tmp_path, places):
    wacz(tmp_path / "a.wacz", {"archive/a.warc": RECORDS[0]})
    data = (tmp_path / "a.wacz").read_bytes()
    for place in places:
        data = with_bytes(data, *place)
    (tmp_path / "a.wacz").write_bytes(data)
    documents, dropped = collect(tmp_path)
    assert not documents
    assert dropped.num_bad == 1
    assert dropped.bad[0].startswith("a.wacz (file damaged")
