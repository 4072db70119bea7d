"""An archive gives each of its pages once, as text; damage costs what it hit, and is named."""

import gzip
import io
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import common_crawl, http_response, open_source, read_all, warc
from llama_jax.config import CommonCrawlSource

pytest.importorskip("fastwarc", reason="needs the extra data")
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "commoncrawl"
DATE = "2024-02-20T21:00:00Z"


def page(text):
    return f"<html><body><article><p>{text}</p></article></body></html>".encode()


def http(body, *headers, status="200 OK"):
    headers = headers or ("Content-Type: text/html; charset=utf-8",)
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def record(number, block, *, kind="response", length=None, newline="\r\n"):
    head = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: http://example.org/{number}",
        f"WARC-Date: {DATE}",
        f"Content-Type: {'text/plain' if kind == 'conversion' else 'application/http'}",
        f"Content-Length: {len(block) if length is None else length}",
    ]
    return "".join(line + newline for line in [*head, ""]).encode() + block + 2 * newline.encode()


def arc(number, block, *, length=None):
    length = len(block) if length is None else length
    return b"http://example.org/%d 127.0.0.1 20240220210000 text/html %d\n" % (number, length) + (
        block + b"\n"
    )


ARC_HEAD = b"filedesc://a.arc 0.0.0.0 20240220210000 text/plain 7\n1 1 IA\n\n"
TEXTS = [
    f"This is the text of page number {number}, and it is worth reading." for number in range(4)
]
RECORDS = [record(number, http(page(text))) for number, text in enumerate(TEXTS)]
PLAIN = b"".join(RECORDS)
MEMBERS = [gzip.compress(data, mtime=0) for data in RECORDS]
PACKED = b"".join(MEMBERS)


def collect(path, **options):
    dropped = Dropped()
    source = open_source(CommonCrawlSource(path=str(path), **options))
    return list(read_all(source, dropped)), dropped


def texts(documents):
    return [document.text for document in documents]


def starts(parts):
    return [sum(map(len, parts[:number])) for number in range(len(parts))]


@pytest.mark.parametrize(
    ("name", "data", "places"),
    [
        ("a.warc", PLAIN, starts(RECORDS)),
        ("a.warc.gz", PACKED, starts(MEMBERS)),
        ("a.warc.gz", gzip.compress(PLAIN), []),
        ("a.arc", ARC_HEAD + b"".join(arc(n, http(page(t))) for n, t in enumerate(TEXTS)), None),
        (
            "a.arc.gz",
            b"".join(
                map(
                    gzip.compress, [ARC_HEAD, *(arc(n, http(page(t))) for n, t in enumerate(TEXTS))]
                )
            ),
            None,
        ),
        (
            "a.warc",
            b"".join(record(n, http(page(t)), newline="\n") for n, t in enumerate(TEXTS)),
            None,
        ),
    ],
)
def test_pages_come_with_their_place_url_and_date(tmp_path, name, data, places):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_bytes(data)
    (tmp_path / "other.txt").write_text("no archive")
    documents, dropped = collect(tmp_path)
    assert texts(documents) == TEXTS
    assert not dropped.counts
    assert [document.url for document in documents] == [f"http://example.org/{n}" for n in range(4)]
    date = DATE if "warc" in name else "20240220210000"
    assert {document.metadata for document in documents} == {(("date", date),)}
    assert len({document.id for document in documents}) == 4
    if places is not None:
        assert not places or [d.id for d in documents] == [
            f"sub/{name}:{place}" for place in places
        ]
    else:
        at = [int(document.id.rpartition(":")[2]) for document in documents]
        for place, text in zip(at, TEXTS, strict=True):
            found = (
                zlib.decompressobj(31).decompress(data[place:]) if "gz" in name else data[place:]
            )
            assert found.startswith((b"http://example.org/", b"WARC/1.0"))
            assert text.encode() in found[:500]


@pytest.mark.parametrize(
    ("wet", "is_read"),
    [
        ("warc/a.warc.wet.gz", False),
        ("wet/a.warc.wet", False),
        ("warc/a.wet.zst", False),
        ("wet/b.warc.wet.gz", True),
        ("other/a.warc.wet.gz", True),
        ("a.warc.wet.gz", True),
    ],
)
def test_of_a_warc_and_a_wet_with_the_same_pages_the_warc_is_read(tmp_path, wet, is_read):
    for name in ("warc/a.warc.gz", wet):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = {f.name: f for f in open_source(CommonCrawlSource(path=str(tmp_path))).files()}
    assert not found["warc/a.warc.gz"].unread
    assert bool(found[wet].unread) != is_read
    dropped = Dropped()
    list(open_source(CommonCrawlSource(path=str(tmp_path))).read(found[wet], dropped))
    assert ("WET of a WARC that is read" in dropped.counts) != is_read


def test_wet_gives_texts_as_they_are_unless_left_out(tmp_path):
    text = "First line\n\n  second line\nThird \N{SNOWMAN}"
    (tmp_path / "a.warc.wet.gz").write_bytes(
        gzip.compress(record(0, b"x", kind="warcinfo"))
        + gzip.compress(record(1, text.encode(), kind="conversion"))
    )
    (tmp_path / "b.warc.gz").write_bytes(MEMBERS[0])
    assert texts(collect(tmp_path)[0]) == [text, TEXTS[0]]
    assert texts(collect(tmp_path, formats=("warc",))[0]) == TEXTS[:1]
    assert texts(collect(tmp_path, formats=("wet",))[0]) == [text]
    with pytest.raises(ValueError, match=r"sources\.common_crawl\.formats is empty"):
        CommonCrawlSource(formats=())
    with pytest.raises(ValueError, match=r"holds no \.arc file"):
        collect(tmp_path, formats=("arc",))


def test_only_pages_are_taken_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(common_crawl, "_MAX_PAGE_BYTES", 5_000)
    monkeypatch.setattr(warc, "MAX_RECORD_BYTES", 20_000)
    data = [
        record(0, http(b"x", "Content-Type: image/png")),
        record(1, http(page("gone"), status="404 Not Found")),
        record(2, http(page("a" * 6_000))),
        record(3, http(page("a" * 30_000))),
        record(4, http(b"<html><script>1</script></html>")),
        record(5, http(b"GIF89a", "Server: x")),
        record(6, http(page("no content type"), "Server: x")),
        record(7, http(page("asked for"), "Server: x"), kind="request"),
        record(8, page("no header at all")),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(data))
    documents, dropped = collect(tmp_path)
    assert texts(documents) == ["no content type", "no header at all"]
    names = [f"a.warc:{place}" for place in starts(data)]
    assert dropped.examples == {
        "not HTML": [names[0], names[5]],
        "not answered with status 200": [names[1]],
        "page of more than 5,000 bytes": [names[2]],
        warc.TOO_LARGE: [names[3]],
        "no text": [names[4]],
    }


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def damaged(number, parts, part):
    return b"".join([*parts[:number], part, *parts[number + 1 :]])


@pytest.mark.parametrize(
    ("name", "data", "kept"),
    [
        ("a.warc.gz", damaged(1, MEMBERS, flipped(MEMBERS[1], 40)), [0, 2, 3]),
        ("a.warc.gz", damaged(1, MEMBERS, flipped(MEMBERS[1], -6 + len(MEMBERS[1]))), [0, 2, 3]),
        ("a.warc.gz", damaged(1, MEMBERS, flipped(MEMBERS[1], 0)), [0, 2, 3]),
        ("a.warc.gz", damaged(0, MEMBERS, flipped(MEMBERS[0], 0)), [1, 2, 3]),
        ("a.warc.gz", damaged(1, MEMBERS, MEMBERS[1][:80]), [0, 2, 3]),
        ("a.warc.gz", damaged(1, MEMBERS, b"junk" * 9), [0, 2, 3]),
        ("a.warc.gz", PACKED[:-30], [0, 1, 2]),
        ("a.warc.gz", PACKED[: 20 - len(MEMBERS[3])], [0, 1, 2]),
        ("a.warc", damaged(1, RECORDS, b"junk\r\n" * 9), [0, 2, 3]),
        ("a.warc", damaged(1, RECORDS, b"\0" * 5000), [0, 2, 3]),
        ("a.warc", damaged(1, RECORDS, record(1, http(page("cut")), length=1 << 60)), [0, 2, 3]),
        ("a.warc", damaged(1, RECORDS, record(1, b"x" * 50, length=9_999_999)), [0, 2, 3]),
        ("a.warc", PLAIN[:-40], [0, 1, 2]),
    ],
)
def test_damage_costs_the_record_that_it_hit(tmp_path, name, data, kept):
    (tmp_path / name).write_bytes(data)
    documents, dropped = collect(tmp_path)
    assert [t for t in texts(documents) if t in TEXTS] == [TEXTS[number] for number in kept]
    assert dropped.counts[warc.DAMAGED] == 1


@pytest.mark.parametrize("chunk_bytes", [1, 4, 5, 1 << 20])
def test_the_next_record_is_found_wherever_chunks_end(monkeypatch, chunk_bytes):
    monkeypatch.setattr(warc, "_CHUNK_BYTES", chunk_bytes)
    assert warc.find(io.BytesIO(b"WARC/1 WAWARC/1"), b"WARC/", 1) == 9
    assert warc.find(io.BytesIO(b"WARC/1 WAWARC"), b"WARC/", 1) == -1


ARCS = [ARC_HEAD, *(arc(number, http(page(text))) for number, text in enumerate(TEXTS))]
ARC_MEMBERS = [gzip.compress(data, mtime=0) for data in ARCS]


@pytest.mark.parametrize(
    ("name", "data", "kept", "reason"),
    [
        ("a.arc.gz", damaged(2, ARC_MEMBERS, flipped(ARC_MEMBERS[2], 40)), [0, 2, 3], warc.DAMAGED),
        ("a.arc.gz", damaged(2, ARC_MEMBERS, b"junk" * 9), [0, 2, 3], warc.DAMAGED),
        ("a.arc.gz", b"".join(ARC_MEMBERS)[:-30], [0, 1, 2], warc.DAMAGED),
        ("a.arc", damaged(2, ARCS, b"junk\n" * 9), [0, 2, 3], warc.DAMAGED),
        ("a.arc", b"".join(ARCS)[:-30], [0, 1, 2], warc.DAMAGED),
        ("a.arc", damaged(2, ARCS, arc(1, bytes(20 << 20))), [0, 2, 3], warc.TOO_LARGE),
        (
            "a.arc",
            ARC_HEAD + b"x" * 300_000 + b"\n" + b"".join(ARCS[1:]),
            [0, 1, 2, 3],
            warc.DAMAGED,
        ),
    ],
)
def test_damage_costs_an_arc_no_more(tmp_path, name, data, kept, reason):
    (tmp_path / name).write_bytes(data)
    documents, dropped = collect(tmp_path)
    assert texts(documents) == [TEXTS[number] for number in kept]
    assert dropped.counts == {reason: 1}


def test_a_large_record_is_given_only_with_the_right_checksum(tmp_path):
    words = random.Random(0).randbytes(200_000).hex(" ", 4)
    large = gzip.compress(record(9, http(page(words))), mtime=0)
    for name, data, kept in [
        ("right.warc.gz", large + b"junk" * 9 + MEMBERS[0], [words, TEXTS[0]]),
        ("wrong.warc.gz", flipped(large, len(large) - 6) + MEMBERS[0], [TEXTS[0]]),
    ]:
        (tmp_path / name).write_bytes(data)
        documents, dropped = collect(tmp_path / name)
        assert texts(documents) == kept
        assert dropped.counts[warc.DAMAGED] == 1


def test_no_flipped_bit_stops_a_build(tmp_path):
    rng = random.Random(0)
    for number in range(150):
        data = PACKED if number % 2 else PLAIN
        for _ in range(rng.randrange(1, 4)):
            data = flipped(data, rng.randrange(len(data)))
        path = tmp_path / ("a.warc.gz" if number % 2 else "a.warc")
        path.write_bytes(data[: rng.randrange(1, len(data) + 1)])
        documents, _ = collect(path)
        assert len(documents) <= 4


def test_broken_chunks_codings_and_archives_never_stop_a_build(tmp_path):
    brotli = pytest.importorskip("brotli")
    text = page(TEXTS[0])
    gzipped = gzip.compress(text, mtime=0)
    html = "Content-Type: text/html"
    chunked = b"".join(b"%x;ext\r\n%s\r\n" % (7, text[at : at + 7]) for at in range(0, 98, 7))
    bodies = [
        http(gzipped, html, "Content-Encoding: gzip"),
        http(brotli.compress(text), html, "Content-Encoding: br"),
        http(zlib.compress(text), html, "content-encoding: DEFLATE"),
        http(zlib.compress(text)[2:-4], html, "Content-Encoding: deflate"),
        http(gzip.compress(gzipped), html, "Content-Encoding: gzip, gzip"),
        http(chunked, html, "Transfer-Encoding: chunked"),
        http(text, html, "Content-Encoding: gzip"),
        http(text, html, "Content-Encoding: br"),
        http(text, html, "Transfer-Encoding: chunked"),
        http(gzipped[:-6], html, "Content-Encoding: gzip"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(record(n, b) for n, b in enumerate(bodies)))
    documents, dropped = collect(tmp_path)
    assert [text[:35] for text in texts(documents)] == [TEXTS[0][:35]] * len(bodies)
    assert not dropped.counts


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_body_that_expands_is_bounded(tmp_path, monkeypatch, coding):
    monkeypatch.setattr(common_crawl, "_MAX_PAGE_BYTES", 1 << 20)
    brotli = pytest.importorskip("brotli")
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding]
    packed = (
        pack(b"<p>" + bytes(200_000_000))
        if coding != "br"
        else pack(b"<p>" + bytes(200_000_000), quality=2)
    )
    block = http(packed, "Content-Type: text/html", f"Content-Encoding: {coding}")
    (tmp_path / "a.warc").write_bytes(record(0, block) + RECORDS[1])
    tracemalloc.start()
    documents, dropped = collect(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(documents) == [TEXTS[1]]
    assert dropped.counts == {"page of more than 1,048,576 bytes": 1}
    assert peak < 6_000_000


FACT, GREETING, JAPANESE = (
    "\u0444\u0430\u043a\u0442",
    "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u65e5\u672c\u8a9e",
)
SHIFT_JIS = b'<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">'


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        pytest.param("\ufeffcaf\xe9".encode("utf-16-le"), "latin-1", "caf\xe9", id="mark"),
        pytest.param("caf\xe9".encode(), "iso-8859-1", "caf\xe9", id="valid UTF-8"),
        pytest.param("\u201ccaf\xe9".encode("cp1252"), "Latin1", "\u201ccaf\xe9", id="labels"),
        pytest.param(FACT.encode("cp1251"), "Windows-1251", FACT, id="header"),
        pytest.param(
            b'<meta charset="koi8-r">' + FACT.encode("cp1251"), "cp1251", FACT, id="first"
        ),
        pytest.param(SHIFT_JIS + JAPANESE.encode("shift_jis"), "x", JAPANESE, id="meta"),
        pytest.param(JAPANESE.encode("iso2022_jp"), "iso-2022-jp", JAPANESE, id="escapes"),
        pytest.param(GREETING.encode("cp1251") * 20, "made-up", GREETING, id="guess"),
        pytest.param(b'<meta charset="utf-16">caf\xe9', "", "caf\ufffd", id="no UTF-16"),
    ],
)
def test_characters_are_read_as_a_browser_would(body, charset, text):
    assert text in http_response.decode_text(body, f"text/html; charset={charset}")
