"""A large file is read in pieces; wherever it is cut, the same documents come, each once."""

import bz2
import gzip
import itertools
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import plan
from data_pipelines.document import Divisible, Dropped
from data_pipelines.runner import build, executor
from data_pipelines.sources import open_source, pieces, records
from llama_jax.config import BuildConfig, FilesSource, TokenizerTraining, WikipediaSource
from tests.data_pipelines.small_build import Quiet, contents, texts

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "wikipedia"
ENGLISH = CORPUS / "piskvorky+gensim"
SITE = '<siteinfo><namespaces><namespace key="6">Berkas</namespace></namespaces></siteinfo>'


@pytest.fixture(autouse=True)
def _small_files_are_large(monkeypatch):
    monkeypatch.setattr(records, "_LARGE_BYTES", 0)


def streams(data, size):
    """As pbzip2 writes them: cut anywhere."""
    return b"".join(bz2.compress(data[at : at + size]) for at in range(0, len(data), size))


def dump(count):
    pages = (
        f"<page><title>T{i}</title><ns>0</ns><id>{i}</id><revision>"
        f"<text>{'word ' * (i % 7)}[[Berkas:x.png]] of é {i}</text></revision></page>\n"
        for i in range(count)
    )
    return f'<mediawiki version="0.11">{SITE}{"".join(pages)}</mediawiki>\n'.encode()


def json_lines(count):
    rows = ({"text": f"{'ä' * (number * 7 % 50)} {number}"} for number in range(count))
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write_rows(path, count):
    table = pa.table({"text": [f"row {number}" for number in range(count)]})
    pq.write_table(table, path, row_group_size=9)


def write(folder, name):
    """A file of some 50 records; the source that reads it."""
    path = folder / name
    if name == "a.parquet":
        write_rows(path, 50)
    elif name.startswith("a.jsonl"):
        data = json_lines(50)
        path.write_bytes(data if name == "a.jsonl" else b"\n\n" + data[:-1])
    elif name == "a.xml":
        path.write_bytes(dump(50))
    elif name == "utf-16.xml":
        path.write_bytes(dump(50).decode().encode("utf-16"))
    elif name == "stream_a_page.xml.bz2":
        head, *pages = dump(50).split(b"<page>")
        parts = [head, *(b"<page>" + page for page in pages)]
        path.write_bytes(b"".join(map(bz2.compress, parts)))
    else:
        path.write_bytes(streams(dump(50), 37))
    kind = WikipediaSource if ".xml" in name else FilesSource
    return open_source(kind(path=str(path)))


NAMES = [
    "a.jsonl",
    "a.parquet",
    "a.xml",
    "utf-16.xml",
    "stream_a_page.xml.bz2",
    "stream_37_bytes.xml.bz2",
]


def can_cut(source, file):
    return isinstance(source, Divisible) and source.can_cut(file)


def read(source, file):
    dropped = Dropped()
    return list(source.read(file, dropped)), dropped


@pytest.mark.parametrize("name", NAMES)
def test_wherever_a_file_is_cut_the_same_documents_come(tmp_path, name):
    source = write(tmp_path, name)
    (file,) = source.files()
    expected, _ = read(source, file)
    assert len(expected) == 50
    assert can_cut(source, file)
    chosen = random.Random(0)
    for count in (1, 2, 3, 10, 40):
        cuts = sorted(chosen.sample(range(1, file.size_bytes), count))
        found = []
        for start, stop in zip([0, *cuts], [*cuts, file.size_bytes], strict=True):
            documents, dropped = read(source, file._replace(start=start, stop=stop))
            assert not dropped.counts
            found += documents
        assert found == expected


@pytest.mark.parametrize("name", ["a.jsonl", "stream_37_bytes.xml.bz2"])
def test_a_cut_at_any_byte_loses_nothing(tmp_path, name):
    source = write(tmp_path, name)
    (file,) = source.files()
    expected, _ = read(source, file)
    for cut in range(1, min(file.size_bytes, 500)):
        one, _ = read(source, file._replace(stop=cut))
        two, _ = read(source, file._replace(start=cut, stop=file.size_bytes))
        assert one + two == expected


def test_lines_of_a_large_file_are_known_by_their_bytes(tmp_path, monkeypatch):
    data = b'{"text": "one"}\n\nnonsense\n{"text": "two"}'
    (tmp_path / "a.jsonl").write_bytes(data)
    source = open_source(FilesSource(path=str(tmp_path)))
    (file,) = source.files()
    documents, dropped = read(source, file)
    assert [document.id for document in documents] == ["a.jsonl:@0", "a.jsonl:@26"]
    assert dropped.examples == {"no valid JSON": ["a.jsonl:@17"]}
    monkeypatch.setattr(records, "_LARGE_BYTES", len(data))
    assert not can_cut(source, file)
    assert [document.id for document in read(source, file)[0]] == ["a.jsonl:1", "a.jsonl:4"]


def test_a_line_that_is_too_long_is_counted_once_in_whatever_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 40)
    lines = ['{"text": "one"}', '{"text": "' + "x" * 200 + '"}', '{"text": "two"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = open_source(FilesSource(path=str(tmp_path)))
    (file,) = source.files()
    for size in (10, 39, 100):
        found, counted = [], 0
        for start in range(0, file.size_bytes, size):
            stop = min(start + size, file.size_bytes)
            documents, dropped = read(source, file._replace(start=start, stop=stop))
            found += [document.text for document in documents]
            counted += dropped.counts.total()
        assert found == ["one", "two"]
        assert counted == 1


def test_what_is_wrong_with_a_whole_table_is_told_by_one_of_its_pieces(tmp_path):
    write_rows(tmp_path / "a.parquet", 50)
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + bytes(900))
    told = []
    for field in ("text", "other"):
        source = open_source(FilesSource(path=str(tmp_path), text_field=field))
        for file in source.files():
            for start in range(0, file.size_bytes, 100):
                stop = min(start + 100, file.size_bytes)
                told += read(source, file._replace(start=start, stop=stop))[1].counts
    assert told == [
        "file damaged, the rest of it is lost (ArrowInvalid)",
        "no column 'other'",
        "file damaged, the rest of it is lost (ArrowInvalid)",
    ]


def test_damage_in_a_dump_costs_its_piece_and_a_dump_cut_short_is_told_once(tmp_path):
    source = write(tmp_path, "stream_a_page.xml.bz2")
    (file,) = source.files()
    expected, _ = read(source, file)
    data = bytearray(Path(file.url).read_bytes())
    middle = data.index(b"BZh9", len(data) // 2)
    data[middle] ^= 0xFF
    Path(file.url).write_bytes(data)
    bounds = (0, middle - 400, middle + 400, file.size_bytes)
    kept, told = [], []
    for start, stop in itertools.pairwise(bounds):
        documents, dropped = read(source, file._replace(start=start, stop=stop))
        kept += documents
        told += dropped.bad
    piece = f"{file.name} (bytes {bounds[1]} to {bounds[2]})"
    assert told == [f"{piece} (file damaged, the rest of it is lost (OSError))"]
    assert len(expected) - 8 < len(kept) < len(expected)
    assert set(kept) < set(expected)

    Path(file.url).write_bytes(data[:middle])
    (short,) = source.files()
    halves = (short._replace(stop=200), short._replace(start=200, stop=middle))
    assert [read(source, half)[1].num_bad for half in halves] == [0, 1]


def test_only_what_has_places_to_begin_at_is_cut(tmp_path):
    data = dump(2000)
    (tmp_path / "one.xml.bz2").write_bytes(bz2.compress(data))
    (tmp_path / "one.xml.gz").write_bytes(gzip.compress(data))
    (tmp_path / "many.xml.bz2").write_bytes(streams(data, 1000))
    source = open_source(WikipediaSource(path=str(tmp_path)))
    assert {file.name: can_cut(source, file) for file in source.files()} == {
        "one.xml.bz2": False,
        "one.xml.gz": False,
        "many.xml.bz2": True,
    }
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json_lines(10)))
    (tmp_path / "a.txt").write_text("text")
    files = open_source(FilesSource(path=str(tmp_path)))
    assert not any(can_cut(files, file) for file in files.files())


def test_streams_are_found_where_the_file_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_CHUNK_BYTES", 16)
    test_wherever_a_file_is_cut_the_same_documents_come(tmp_path, "stream_37_bytes.xml.bz2")


@pytest.fixture
def large_file(tmp_path, monkeypatch):
    """A recipe of a file of JSON lines that is many times as large as a part."""
    monkeypatch.setattr("data_pipelines.plan._MIN_PART_BYTES", 4000)
    monkeypatch.setattr("data_pipelines.plan._PART_BYTES", 4000)
    path = tmp_path / "texts.jsonl"
    with path.open("w") as file:
        for text in texts(200):
            file.write(json.dumps({"text": text}) + "\n")
    return BuildConfig(
        name="test",
        sources=(FilesSource(path=str(path)),),
        tokenizer=TokenizerTraining(vocab_size=330, sample_bytes=20_000),
        held_out_fraction=0.2,
    )


def test_a_build_of_one_large_file_is_shared_out_and_counts_it_once(large_file, tmp_path):
    for workers in (1, 2):
        with executor(workers) as run:
            work = tmp_path / f"work{workers}"
            build(large_file, tmp_path / str(workers), Quiet(), run=run, work=work)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(list((tmp_path / "work1/collect/files").iterdir())) > 5
    report = json.loads((tmp_path / "1/report.json").read_text())["sources"]["files"]
    assert report["files"] == 1
    assert report["raw_bytes"] == (tmp_path / "texts.jsonl").stat().st_size
    assert report["passages"][0] == {
        "name": "read",
        "documents": 200,
        "text_bytes": sum(len(text.encode()) for text in texts(200)),
    }


def test_how_a_file_is_cut_follows_from_sizes_alone(large_file):
    source = open_source(large_file.sources[0])
    files = list(source.files())
    cut = [piece for part in plan.parts(source, files) for piece in part]
    assert cut[0].start == 0
    assert cut[-1].stop == files[0].size_bytes
    assert [one.stop for one in cut[:-1]] == [two.start for two in cut[1:]]
    assert max(piece.num_bytes for piece in cut) <= 4000


@pytest.mark.skipif(not ENGLISH.is_dir(), reason=f"no samples at {ENGLISH}")
@pytest.mark.slow
def test_a_real_dump_in_streams_of_a_hundred_pages_gives_the_same_in_any_pieces(tmp_path):
    data = b"".join(
        bz2.decompress(path.read_bytes()) for path in ENGLISH.glob("enwiki-latest*.bz2")
    )
    head, *pages = data.split(b"  <page>")
    parts = [
        head,
        *(b"  <page>" + b"  <page>".join(pages[at : at + 100]) for at in range(0, len(pages), 100)),
    ]
    (tmp_path / "a.xml.bz2").write_bytes(b"".join(map(bz2.compress, parts)))
    source = open_source(WikipediaSource(path=str(tmp_path)))
    (file,) = source.files()
    expected, dropped = read(source, file)
    found, counts = [], dropped.counts.copy()
    for start in range(0, file.size_bytes, 200_000):
        piece = file._replace(start=start, stop=min(start + 200_000, file.size_bytes))
        documents, dropped = read(source, piece)
        found += documents
        counts.subtract(dropped.counts)
    assert found == expected
    assert not any(counts.values())
