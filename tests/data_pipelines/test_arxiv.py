"""Papers come whole and in reading order, without what is not theirs to say."""

import gzip
import io
import itertools
import tarfile
from pathlib import Path

import pytest

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from data_pipelines.sources.latex import PaperTooLargeError, clean_paper
from llama_jax.config import ArxivSource

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "arxiv"


def paper(body: str, preamble: str = "") -> str:
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{body}\n\\end{{document}}"


def clean(body: str, preamble: str = "", **files: str) -> str | None:
    named = {f"{name.replace('__', '/')}.tex": text for name, text in files.items()}
    return clean_paper({"main.tex": paper(body, preamble), **named})


def tar(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def collect(path: Path):
    dropped = Dropped()
    return {
        d.id: d.text for d in read_all(open_source(ArxivSource(path=str(path))), dropped)
    }, dropped.counts


def test_a_paper_begins_with_its_first_section_and_ends_before_its_references():
    text = clean(
        "\\maketitle Title\n\\section{One}\nText \\cite{a}.\n"
        "\\begin{thebibliography}{9}\\bibitem{a} A.\\end{thebibliography}\n\\appendix More.",
        preamble="\\usepackage{x}",
    )
    assert text == "\\section{One}\nText \\cite{a}.\n\n\\appendix More."


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a % b\nc", "a\nc"),
        ("5\\% of % b\nc", "5\\% of\nc"),
        ("a\\\\% b\nc", "a\\\\\nc"),
        ("a\n  % alone\nb", "a\n  b"),
        (
            "\\begin{verbatim}\n% kept\n\\end{verbatim}",
            "\\begin{verbatim}\n% kept\n\\end{verbatim}",
        ),
        ("a\\begin{comment}\nb\n\\end{comment}c", "ac"),
    ],
)
def test_comments_go_and_paragraphs_stay(written, read):
    assert clean(written) == read


def test_files_are_read_where_they_are_asked_for():
    text = clean(
        "\\input{one}\\include{parts/two}\\input three\n\\import{parts/}{four}end",
        one="1 ",
        parts__two="2 \\input{five} ",
        three="3 ",
        parts__four="4 ",
        parts__five="5 ",
    )
    assert text is not None
    assert text.split() == ["1", "2", "5", "3", "4", "end"]


def test_a_file_that_asks_for_itself_is_read_once():
    assert clean("a \\input{loop} b", loop="x \\input{loop} y").split() == ["a", "x", "y", "b"]


@pytest.mark.parametrize(
    ("definition", "call", "expanded"),
    [
        ("\\newcommand{\\R}{\\bf R}", "$\\R$ and \\R{} or \\Rx", "$\\bf R$ and \\bf R or \\Rx"),
        ("\\newcommand\\pair[2]{(#1, #2)}", "\\pair{a}{b} \\pair xy", "(a, b) (x, y)"),
        ("\\newcommand{\\n}[2][p]{|#2|_{#1}}", "\\n{x} \\n[q]{y}", "|x|_{p} |y|_{q}"),
        ("\\def\\half#1{#1/2}", "\\half{\\half{x}}", "x/2/2"),
        ("\\DeclareMathOperator{\\rank}{rank}", "\\rank A", "\\operatorname{rank} A"),
        ("\\def\\be{\\begin{equation}}", "\\be x", "\\begin{equation} x"),
        ("\\def\\a{1\\b}\\def\\b{2}", "\\a", "12"),
        ("\\def\\me{\\textbf{me}}\\def\\me{you}", "\\me", "you"),
    ],
)
def test_macros_of_the_authors_are_expanded(definition, call, expanded):
    assert clean(call, preamble=definition) == expanded


@pytest.mark.parametrize(
    "definition",
    ["\\def\\x{\\csname y\\endcsname}", "\\def\\x#1.{#1}", "\\renewcommand{\\x}{\\bf\\x}"],
)
def test_macros_that_compute_stay_as_they_are_called(definition):
    text = clean("A \\x{b}.", preamble=definition)
    assert text is not None
    assert "\\x{b}." in text


def test_the_longest_document_is_the_paper():
    files = {"cover.tex": paper("Dear editor"), "ms.tex": paper("\\section{A} Long " * 9)}
    text = clean_paper(files)
    assert text is not None
    assert text.startswith("\\section{A}")
    assert clean_paper({"macros.tex": "\\def\\x{y}"}) is None


DOUBLING = "".join(
    f"\\def\\x{letter}{{\\x{after}\\x{after}}}"
    for letter, after in itertools.pairwise("abcdefghijklmnopqrstu")
)
NAMES = ["".join(letters) for letters in itertools.product("abcdefghijklmnop", repeat=4)]
# Sizes at which time with their square would be minutes to days.
BOMBS = {
    "doubling macros": (DOUBLING, "\\xa " * 2000),
    "unclosed calls": ("\\def\\x#1{#1#1}", "\\x{" * 100_000),
    "nested calls": ("\\def\\x#1{#1}", "\\x{" * 3000 + "}" * 3000),
    "verbatim": ("", "\\begin{verbatim}" * 200_000),
    "references": ("", "\\Refs" * 200_000),
    "percents": ("", "%" * 1_000_000),
    "escaped percents": ("", "\\%" * 500_000),
    "blanks": ("", "x" + " " * 1_000_000 + "y"),
    "tabs": ("", "x" + " \t" * 500_000 + "y"),
    "options without end": ("\\newcommand{\\x}[1][d]{#1}", "\\x[" * 100_000),
    "options with one end": ("\\newcommand{\\x}[1][d]{#1}", "\\x[" * 100_000 + "]"),
    "blanks in a definition": ("\\newcommand\\x" + " " * 1_000_000 + "x", ""),
    "blanks in a plain definition": ("\\def\\x" + " " * 1_000_000 + "x", ""),
    "defaults without end": ("\\newcommand\\x[" * 100_000, ""),
    "defaults with one end": ("\\newcommand\\x[" * 100_000 + "]", ""),
    "bibliographies without end": ("", "\\printbibliography[" * 100_000),
    "many macros": (
        "".join(f"\\def\\{name}{{}}" for name in NAMES),
        "".join(f"\\{name}" for name in NAMES),
    ),
}


@pytest.mark.parametrize(("preamble", "body"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_soon(preamble, body):
    try:
        text = clean(body, preamble)
    except PaperTooLargeError:
        return
    assert text is not None
    assert len(text) <= len(body)


def test_papers_are_read_from_the_tars_as_they_are_published(tmp_path):
    source = paper("\\section{A} Caf\xe9")
    members = {
        "1_dot_gz": gzip.compress(source.encode()),
        "2_dot_gz": gzip.compress(source.encode("latin-1")),
        "3_dot_gz": gzip.compress(tar(fig_dot_eps=b"%!PS", a__ms=source.encode())),
        "4_dot_pdf": b"%PDF-1.4",
        "5_dot_gz": gzip.compress(bytes(range(256)) * 99),
        "6_dot_gz": gzip.compress(source.encode())[:40],
        "7_dot_gz": gzip.compress(b"\0" * (129 << 20)),
        "8_dot_gz": gzip.compress(tar(fig_dot_eps=b"%!PS")),
    }
    (tmp_path / "a.tar").write_bytes(tar(**members))
    (tmp_path / "b.tar").write_bytes(tar(**members)[:1500])

    texts, dropped = collect(tmp_path)

    assert texts == {
        f"{name}.gz": "\\section{A} Café" for name in ("a.tar:1", "a.tar:2", "a.tar:3", "b.tar:1")
    }
    assert dropped == {
        "PDF alone": 1,
        "no TeX (encrypted, withdrawn, or of another kind)": 1,
        "paper damaged (EOFError)": 1,
        "larger than a paper may be": 1,
        "no TeX among its files": 1,
        "tar damaged, the rest of it is lost (EOFError)": 1,
    }


def test_a_folder_without_tars_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.tar file"):
        collect(tmp_path)
    with pytest.raises(ValueError, match="there is no such file"):
        collect(tmp_path / "missing")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs ../shared/corpora/arxiv")
def test_genuine_papers_give_clean_text():
    texts, dropped = collect(CORPUS / "genuine")
    # Three that their authors encrypted and one PDF are beside five with sources.
    assert sum(dropped.values()) == 4
    assert len(texts) == 5
    for text in texts.values():
        assert len(text) > 5_000
        assert not any(sign in text for sign in ("\\newcommand", "thebibliography", "\\usepackage"))
