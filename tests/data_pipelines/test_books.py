"""Books come without Gutenberg's words, and with all of their own."""

from pathlib import Path

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from data_pipelines.sources.books import strip_gutenberg
from llama_jax.config import BooksSource

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "books"

HEADER = "Project Gutenberg's A Book, by Nobody\n\nTitle: A Book\n\n"
START = "*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\n"
END = "*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\n\nProduced by Somebody\n\nLicence.\n"
CLOSING = "End of Project Gutenberg's A Book, by Nobody\n\n"
SMALL_PRINT = (
    "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nlawyers\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n"
)
BOOK = "CHAPTER I\n\nIt rained.\n\n\n\nCHAPTER II\n\nIt stopped, as Project Gutenberg knows.\n"


def collect(path):
    dropped = Dropped()
    return {
        d.id: d.text for d in read_all(open_source(BooksSource(path=str(path))), dropped)
    }, dropped


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(HEADER + START + BOOK + END, id="of this"),
        pytest.param(
            HEADER + START.replace("THIS", "THE") + BOOK + END.replace("THIS", "THE"), id="of the"
        ),
        pytest.param(
            HEADER
            + "***START OF THE PROJECT GUTENBERG EBOOK A BOOK, OF\nA LONG TITLE***\n\n"
            + BOOK
            + "***END OF THE PROJECT GUTENBERG EBOOK A BOOK, OF\nA LONG TITLE***\n",
            id="marks over two lines",
        ),
        pytest.param(HEADER + START + BOOK + CLOSING + END, id="a closing line above the mark"),
        pytest.param(HEADER + START + BOOK + CLOSING, id="a closing line alone"),
        pytest.param(HEADER + SMALL_PRINT + BOOK, id="the licence first, no footer"),
        pytest.param(HEADER + SMALL_PRINT + BOOK + "\n" + CLOSING, id="the licence first"),
        pytest.param(HEADER + START + BOOK + END + SMALL_PRINT, id="the licence last"),
        pytest.param(HEADER + START + "Produced by A, B and the\nTeam\n\n" + BOOK + END, id="by"),
        pytest.param(
            HEADER + START + "E-text prepared by A\n\nNote: Project Gutenberg also has\n"
            "  pictures\n\nTranscriber's note:\n\n  Read _this_.\n\n  And this.\n\n\n\n"
            + BOOK
            + END,
            id="credits and a note",
        ),
        pytest.param(
            HEADER + START + "[This e-text includes letters:\n\n  Ā\n\n  Ē]\n\n" + BOOK + END,
            id="a note in brackets",
        ),
        pytest.param(
            HEADER
            + START
            + BOOK
            + "\n  * * * * *\n\nTranscriber's Notes.\n\nPage 1: rained\n"
            + END,
            id="notes at the end",
        ),
        pytest.param((HEADER + START + BOOK + END).replace("\n", "\r\n"), id="Windows"),
    ],
)
def test_a_book_is_what_stands_between_header_and_licence(raw):
    assert strip_gutenberg(raw) == BOOK


def test_a_note_inside_keeps_the_book_on_both_sides():
    note = "Original Transcriber's Notes:\n\nTwo texts were compared.\n\n\n\n"
    assert strip_gutenberg(START + "TITLE\n\n" + note + BOOK + END) == "TITLE\n\n\n\n" + BOOK


def test_words_like_a_credit_stay_inside_a_book():
    book = "TITLE\n\nProduced by Mr. Irving at the Lyceum\n\nACT I\n"
    assert strip_gutenberg(START + book + END) == book


def test_a_note_without_an_end_takes_nothing_with_it():
    book = "Transcriber's note:\n\n" + "A line of the book.\n" * 500
    assert "A line of the book.\n" * 400 in strip_gutenberg(START + "TITLE\n\n" + book + END)


def test_volumes_with_closing_lines_of_their_own_are_whole():
    volumes = "One.\n\n" + CLOSING + "Two.\n" * 20
    assert strip_gutenberg(START + volumes + END) == volumes


def test_books_in_one_file_all_come_without_the_words_between():
    raw = HEADER + START + "One.\n" + END + HEADER + START + "Two.\n" + END
    assert strip_gutenberg(raw).split() == ["One.", "Two."]


def test_a_text_without_a_header_is_kept_whole():
    text = "\n  " + BOOK + CLOSING + "\n\n"
    assert strip_gutenberg(text) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfna\xc3\xafve", "naïve"),
        (b"na\xefve", "naïve"),
        (b"\x93na\xefve\x94", "“naïve”"),
        (b"\x81na\xefve", "\x81naïve"),
    ],
    ids=["a mark of UTF-8", "Latin-1", "Windows-1252", "neither"],
)
def test_every_encoding_of_old_books_is_read(tmp_path, data, text):
    (tmp_path / "a.txt").write_bytes(data)
    assert collect(tmp_path)[0] == {"a.txt": text}


def test_what_is_no_book_is_counted_and_named(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Good.TXT").write_text(HEADER + START + BOOK + END)
    (tmp_path / "page.htm").write_text("<p>not read</p>")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "header.txt").write_text(HEADER + START + END)
    (tmp_path / "wide.txt").write_text("text", "utf-16")
    with (tmp_path / "line.txt").open("wb") as file:
        file.truncate(1 << 30)
    documents, dropped = collect(tmp_path)
    assert documents == {"sub/Good.TXT": BOOK}
    assert dropped.examples == {
        "no text": ["empty.txt", "header.txt"],
        "longer than 16,777,216 bytes": ["line.txt"],
        "no text: has NUL characters": ["wide.txt"],
    }


def test_a_missing_folder_and_one_without_books_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"sources\.books\.path='': there is no such file"):
        list(open_source(BooksSource()).files())
    with pytest.raises(ValueError, match=r"sources\.books\.path=.* holds no \.txt file"):
        collect(tmp_path)


def test_real_books_keep_their_first_and_last_words():
    if not CORPUS.is_dir():
        pytest.skip("needs books in ../shared/corpora")
    documents, dropped = collect(CORPUS)
    assert not dropped.counts
    assert len(documents) == len(list(CORPUS.rglob("*.txt")))
    edges = {
        "76.txt": ("ADVENTURES OF HUCKLEBERRY FINN", "YOURS TRULY, HUCK FINN."),
        "old/hfinn10.txt": ("The INTERNET WIRETAP First Electronic Edition of", "THE END"),
        "old/hfinn12.txt": ("NOTICE", "I been there before."),
        "2701-0.txt": ("MOBY-DICK;", "only found another orphan."),
        "20866-8.txt": ("Infantry Drill Regulations", "NEW YORK"),
        "972.txt": ("THE DEVIL'S DICTIONARY", "sheds its horn every two years."),
        "31894-0.txt": ("TWO LATIN PLAYS FOR", "Tē nōn pigēbit coniugem  [non]"),
        "input.txt": ("First Citizen:", "Whiles thou art waking."),
    }
    for ending, (first, last) in edges.items():
        (text,) = (text for name, text in documents.items() if name.endswith("/" + ending))
        assert text.strip().startswith(first)
        assert text.strip().endswith(last)
    for name, text in documents.items():
        assert "START OF TH" not in text, name
        assert "SMALL PRINT" not in text, name
        assert "Distributed Proofreading Team" not in text, name
        assert "FULL LICENSE" not in text, name
