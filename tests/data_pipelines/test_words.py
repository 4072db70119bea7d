"""Texts are cut into chunks as Python cuts them, and chunks into words as spaCy cuts them."""

import random

import numpy as np
import pytest

from data_pipelines.stages import vocabulary
from data_pipelines.stages.chunks import find_chunks
from data_pipelines.stages.shapes import Splitter
from data_pipelines.stages.vocabulary import Vocabulary
from data_pipelines.stages.words import EXCEPTIONS, split_chunk

SPACES = "".join(chr(code) for code in range(1 << 16) if chr(code).isspace())
# What the splitter looks at, and letters of every class: a, A, a letter without case, a ligature
# that is lower case and no lower-case letter, a title-case one, a digit that is not 0 to 9.
MARKS = ".,:;-–—~/=<>()[]\"'’“…!?*#_&@%+^$£°€|\\"
LETTERS = "aAsStTzZ漢äÄªǅʰ٣µ𝐚08195"
MANY = ["word", "Word", "WORD", "12", "1995", "x" * 61] * 50 + [*(MARKS + LETTERS)] * 20
PIECES = [*EXCEPTIONS, *MANY, "km", "kg", "GB", ".org", "https://", "www.", "US$", "'s", "’S"]


def random_chunks(seed, count):
    rng = random.Random(seed)
    chunks = ("".join(rng.choices(PIECES, k=rng.randint(1, 5))) for _ in range(count))
    return list(dict.fromkeys(chunks))


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ("don't", "do n't"),
        ("(can't)", "( ca n't )"),
        ("I'm", "I 'm"),
        ("its", "its"),
        ("dog's", "dog 's"),
        ("house,", "house ,"),
        ('"Mr.', '" Mr.'),
        ("well-known", "well - known"),
        ("end.Start", "end . Start"),
        ("end...", "end ..."),
        ("https://a.org/b-c", "https://a.org/b-c"),
        ("10km", "10 km"),
        ("3.14", "3.14"),
        ("U.S.", "U.S."),
        ("[1],", "[ 1 ] ,"),
        (":-)", ":-)"),
        ("1995-2000", "1995 - 2000"),
        ("and/or", "and/or"),
        ("either/or", "either / or"),
    ],
)
def test_chunks_are_split_as_spacy_splits_them(chunk, words):
    assert split_chunk(chunk) == words.split()


def test_a_hostile_chunk_is_split_in_linear_time():
    for text in ("." * 300_000, "(" * 300_000, "a-" * 150_000, "'" * 999, "a.b@" * 249):
        assert "".join(split_chunk(text)) == text


@pytest.mark.parametrize("seed", range(20))
def test_chunks_and_lines_are_those_that_python_finds(seed):
    rng = random.Random(seed)
    alphabet = "ab-•.…é漢😀" * 3 + SPACES + "\r\n" * 8
    texts = ["".join(rng.choices(alphabet, k=rng.choice((0, 1, 2, 3, 30)))) for _ in range(30)]
    found = find_chunks(texts)
    lines = [line for text in texts for line in text.splitlines()]
    expected = [chunk.encode() for line in lines for chunk in line.split()]
    assert [found.different[number] for number in found.numbers] == expected
    assert len(set(found.different)) == len(found.different)
    assert found.of_lines.tolist() == [len(line.split()) for line in lines]
    assert found.lines.tolist() == [len(text.splitlines()) for text in texts]
    for text, bullets, ellipses in zip(texts, found.bullets, found.ellipses, strict=True):
        stripped = [line.strip() for line in text.splitlines()]
        assert bullets == sum(line.startswith(("-", "•")) for line in stripped)
        assert ellipses == sum(line.endswith(("...", "…")) for line in stripped)


def together(splitter, chunks):
    found = {}
    for group in splitter.split(chunks):
        ends = np.cumsum(group.num_words)
        for at, end, count in zip(group.which, ends, group.num_words, strict=True):
            found[chunks[at]] = group.words[end - count : end]
    return found


def test_many_chunks_are_split_as_each_by_itself():
    splitter = Splitter()
    for seed in range(4):
        chunks = random_chunks(seed, 5000)
        assert together(splitter, chunks) == {chunk: split_chunk(chunk) for chunk in chunks}


@pytest.mark.parametrize("letters", ["bcd", "Bcd", "漢字漢", "µªº", "135"])
@pytest.mark.parametrize("before", ["", "'", "a.", "US$", "3"])
def test_no_letter_makes_a_difference_that_its_shape_does_not_show(before, letters):
    """Exceptions beside words of the same shape, which make the plan."""
    splitter = Splitter()
    for text in list(EXCEPTIONS)[::3]:
        others = [
            before + "".join(letters[i % 3] if c.isalnum() else c for i, c in enumerate(text))
            for _ in range(2)
        ]
        chunks = list(dict.fromkeys([*others, before + text, before + text + ",", text + before]))
        for _ in range(2):
            assert together(splitter, chunks) == {chunk: split_chunk(chunk) for chunk in chunks}


@pytest.mark.parametrize(
    "chunks",
    [
        ["23°X.", "23°Y.", "23°F."],
        ["10QR", "10ST", "10GB"],
        ["BC$5", "DC$5", "US$5"],
        ["ab.org:123456/c:d", "ab.org:654321/c:d", "ab.org:80/c:d"],
        ["992.168.0.14/ab", "993.168.0.14/ab", "192.168.0.14/ab"],
        ["ab.org/c:d", "cd.org/c:d", f"{'x' * 65}.org/c:d"],
        ["word/word", "door/door", "and/or"],
    ],
)
def test_chunks_of_one_shape_are_split_as_their_letters_ask(chunks):
    splitter = Splitter()
    one, other, odd = (len(split_chunk(chunk)) for chunk in chunks)
    assert one == other != odd
    assert together(splitter, chunks) == {chunk: split_chunk(chunk) for chunk in chunks}


def test_shapes_that_are_many_are_forgotten(monkeypatch):
    monkeypatch.setattr(vocabulary, "_MAX_CHUNKS", 50)
    words, known = [f"{'ab-' * n}c{n}" for n in range(60)] * 2, Vocabulary()
    for at in range(0, len(words), 20):
        known.make_room()
        part = [word.encode() for word in words[at : at + 20]]
        found = known.words(part, np.arange(20))
        expected = [len(split_chunk(word)) for word in words[at : at + 20]]
        assert found.num_words.tolist() == expected
