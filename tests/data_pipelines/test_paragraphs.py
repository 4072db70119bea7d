"""Of paragraphs that occur more than once the first stays, in order of documents' digests."""

import random

import pyarrow.parquet as pq
import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.paragraphs import (
    find_repeats,
    hash_paragraphs,
    normalise,
    remove_repeats,
    sort_repeats,
)
from data_pipelines.stages.spill import Resources
from data_pipelines.tables import Hashed
from llama_jax.config import ParagraphDedup

pytest.importorskip("duckdb")
KEEP_ALL = ParagraphDedup(min_characters=0)


def run(folder, buckets, config=KEEP_ALL, *, parts=2, memory_bytes=1 << 28, threads=1):
    """Texts that are left of buckets of texts, and what was dropped."""
    folder.mkdir(exist_ok=True)
    resources = Resources(scratch=folder / "scratch", memory_bytes=memory_bytes, threads=threads)
    hashed = [
        [
            Hashed(bytes([bucket]) + row.to_bytes(31), Document(f"{bucket}/{row}", text))
            for row, text in enumerate(texts)
        ]
        for bucket, texts in enumerate(buckets)
    ]
    hashes, found, repeats = (
        [folder / f"{name}-{number}" for number in range(count)]
        for name, count in (
            ("hashes", len(buckets)),
            ("found", parts),
            ("repeats", len(buckets)),
        )
    )
    for documents, path in zip(hashed, hashes, strict=True):
        hash_paragraphs(documents, path)
    for part, path in enumerate(found):
        find_repeats(hashes, part, parts, path, resources)
    sort_repeats(found, repeats, resources)
    dropped, left = Dropped(), []
    for documents, path in zip(hashed, repeats, strict=True):
        left.append([h.document.text for h in remove_repeats(documents, path, config, dropped)])
    return left, dropped


def expected(buckets):
    seen, left = set(), []
    for texts in buckets:
        left.append([])
        for text in texts:
            kept = []
            for line in text.split("\n"):
                key = normalise(line).strip()
                if key and key in seen:
                    continue
                seen.add(key)
                kept.append(line)
            left[-1].append("\n".join(kept).strip() if len(kept) < text.count("\n") + 1 else text)
    return left


def random_buckets(count, *, seed):
    chosen = random.Random(seed)
    lines = [f"line {'abcdefghij'[n % 10] * (n // 10 + 1)}" for n in range(300)] + ["", "--"]
    return [
        ["\n".join(chosen.choices(lines, k=chosen.randrange(12))) for _ in range(count)]
        for _ in range(3)
    ]


def test_the_first_occurrence_in_order_of_digest_stays(tmp_path):
    buckets = [["menu\nfirst", "MENU!\nsecond\nmenu"], [], ["third\nmenu", "first\nsecond"]]
    left, dropped = run(tmp_path, buckets)
    assert left == [["menu\nfirst", "second"], [], ["third", ""]]
    assert dropped.notes == {"paragraphs": {"repeated": 5}}


@pytest.mark.parametrize("parts", [1, 3])
def test_lines_left_are_those_of_a_plain_walk(tmp_path, parts, monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.spill._READ_ROWS", 50)
    monkeypatch.setattr("data_pipelines.stages.paragraphs._BATCH_LINES", 40)
    buckets = random_buckets(40, seed=parts)
    left, _ = run(tmp_path, buckets, parts=parts)
    assert left == expected(buckets)


@pytest.mark.parametrize("buckets", [[[]], [[""], ["\n--"]], [["a"], ["b"]]])
def test_where_nothing_repeats_nothing_changes(tmp_path, buckets):
    left, dropped = run(tmp_path, buckets)
    assert left == buckets
    assert not dropped.notes


def test_documents_of_which_too_little_is_left_are_dropped(tmp_path):
    long, short = "x" * 20, "short"
    buckets = [[long, short, f"{long}\nmuch {long}", f"{long}\nlittle", long.upper()]]
    left, dropped = run(tmp_path, buckets, ParagraphDedup(min_characters=10))
    assert left == [[long, short, f"much {long}"]]
    assert dropped.counts == {"paragraphs: characters left": 2}
    examples = dropped.examples["paragraphs: characters left"]
    assert examples == ["0/3 (6, at least 10)", "0/4 (0, at least 10)"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("In 1999, it was.", "in 2024 it was"),
        ("Écœuré — déjà", "ecœure  deja"),
        ("«Ünï»  code٣", "uni  code0"),
        ("Ünïcode 𝒳 12", "unicode 𝒳 00"),
        ("tail \r", "tail"),
    ],
)
def test_case_accents_digits_and_punctuation_do_not_count(a, b):
    assert normalise(a).strip() == normalise(b).strip()


def test_ascii_text_is_normalised_as_any_other():
    text = "".join(map(chr, range(1, 128)))
    assert normalise(text) == normalise(text + "ß").replace("ß".encode(), b"")


@pytest.mark.parametrize("text", ["a\nb", "a + b", "a b", "ab", "b\na", "a\n\nb"])
def test_letters_symbols_and_line_breaks_count(text):
    others = {"a\nb", "a + b", "a b", "ab", "b\na", "a\n\nb"} - {text}
    assert normalise(text) not in {normalise(other) for other in others}


def test_bytes_do_not_depend_on_memory_or_threads(tmp_path):
    buckets = random_buckets(300, seed=0)
    run(tmp_path / "a", buckets)
    run(tmp_path / "b", buckets, memory_bytes=1 << 26, threads=3)
    for path in (tmp_path / "a").iterdir():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert pq.read_metadata(tmp_path / "a" / "repeats-2").num_rows > 0


def test_one_endless_line_and_endless_lines_pass(tmp_path):
    left, _ = run(tmp_path, [["a" * (1 << 22)], ["\n" * (1 << 18)], ["x\n" * (1 << 16)]])
    assert [len(texts[0]) for texts in left] == [1 << 22, 1 << 18, 1]


def test_a_negative_limit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"paragraphs\.min_characters must be zero or more"):
        ParagraphDedup(min_characters=-1)
