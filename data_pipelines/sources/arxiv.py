"""arXiv's bulk sources: tars of papers, each a gzipped file or a gzipped tar."""

import io
import re
import zlib
from collections.abc import Iterator

from llama_jax.config import ArxivSource

from ..document import Document, Dropped, RawFile
from .folder import raw_files
from .latex import MAX_CHARACTERS, PaperTooLargeError, clean_paper
from .tar_members import DAMAGE, Member, TarTooLargeError, tar_members

_MAX_PAPER_BYTES = 128 << 20  # unpacked; beyond it is a bomb, or a book of pictures
_TEX = (".tex", ".ltx", ".latex")
_DOCUMENT = re.compile(rb"^[^%\n]*\\document(?:class|style)\b", re.M)
_HEAD_BYTES = 1 << 16
_DECLARED = re.compile(rb"\\(?:usepackage|RequirePackage)\s*\[([a-z0-9]+)\]\s*\{inputenc\}")
# "2406/2406.00001.gz", and before 2007 "0303/math0303004.gz".
_PAPER = re.compile(r"(?:([a-z][a-z.-]*)(?=\d{7}\.)|(?=\d{4}\.\d{4,5}\.))([\d.]+)\.[a-z]+", re.I)
# Encodings as inputenc names them, where Python has another name.
_PYTHON_NAMES = {
    "ansinew": "cp1252",
    "applemac": "mac_roman",
    "latin9": "iso8859-15",
    "koi8-r": "koi8_r",
    "utf8x": "utf-8",
}


class Arxiv:
    """Papers of the bulk tars below a folder, in the order of the tars and within them.

    Ids name the tar and the paper: "arXiv_src_2406_001.tar:2406/2406.00001.gz". Papers of which
    there is a PDF alone are counted, and so is every other one that gives no text. Nothing is
    unpacked to disk.
    """

    def __init__(self, config: ArxivSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every tar; see `DocumentSource`."""
        config = self._config
        return raw_files(
            config.name, config.path, lambda name: name.lower().endswith(".tar"), kinds=".tar"
        )

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every paper with text; see `DocumentSource`."""
        name = file.name
        try:
            with file.open() as opened:
                for member in tar_members(opened):
                    if not member.is_folder:
                        yield from self._paper(f"{name}:{member.name}", member, dropped)
        except TarTooLargeError:
            dropped.add("larger than a tar may be, the rest of it is lost", name)
        except DAMAGE as error:
            dropped.add_bad(f"tar damaged, the rest of it is lost ({type(error).__name__})", name)

    def _paper(self, paper: str, member: Member, dropped: Dropped) -> Iterator[Document]:
        if member.refused:
            dropped.add(member.refused, paper)
            return
        if member.name.lower().endswith(".pdf"):
            dropped.add("PDF alone", paper)
            return
        if member.size_bytes > _MAX_PAPER_BYTES:
            dropped.add("larger than a paper may be", paper)
            return
        packed = member.read()
        try:
            files, reason = _unpack(packed)
            text = clean_paper(files) if files else None
        except (PaperTooLargeError, TarTooLargeError):
            dropped.add("larger than a paper may be", paper)
            return
        except DAMAGE as error:
            dropped.add_bad(f"paper damaged ({type(error).__name__})", paper)
            return
        if text is None:
            dropped.add(reason or "no LaTeX document", paper)
        elif not text:
            dropped.add("no text", paper)
        else:
            yield Document(paper, text, _url(member.name))


def _unpack(packed: bytes) -> tuple[dict[str, str], str]:
    """TeX files of a paper by path; or none, and why.

    Raises:
        PaperTooLargeError: If it unpacks to more than a paper may be.
        TarTooLargeError: If it is a tar with longer headers than one has.
        DAMAGE: One of these, if it is damaged.
    """
    data = _gunzip(packed) if packed[:2] == b"\x1f\x8b" else packed
    if data[:5] == b"%PDF-":
        return {}, "PDF alone"
    if data[:2] == b"%!":
        return {}, "PostScript alone"
    if data[257:262] != b"ustar" and not _is_old_tar(data):
        if b"\\" not in data[:100_000] or data.count(0) > len(data) // 1000:
            return {}, "no TeX (encrypted, withdrawn, or of another kind)"
        return {"paper.tex": _decode(data)}, ""
    files = {}
    for member in tar_members(io.BytesIO(data)):
        if not member.refused:
            content = member.read()
            # Authors name files as they like; a document says what it is.
            if member.name.lower().endswith(_TEX) or _DOCUMENT.search(content[:_HEAD_BYTES]):
                files[member.name.removeprefix("./")] = _decode(content)
    return files, "" if files else "no TeX among its files"


def _gunzip(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    data = unpacker.decompress(packed, _MAX_PAPER_BYTES)
    if unpacker.unconsumed_tail:
        raise PaperTooLargeError
    if not unpacker.eof:
        raise EOFError
    return data


def _is_old_tar(data: bytes) -> bool:
    """Whether it is a tar from before POSIX, which has no mark but its checksum."""
    header = data[:512]
    if len(header) < 512:
        return False
    try:
        stated = int(header[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _decode(data: bytes) -> str:
    if len(data) > MAX_CHARACTERS:
        raise PaperTooLargeError
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = _DECLARED.search(data)
        name = declared[1].decode() if declared else "latin-1"
        try:
            return data.decode(_PYTHON_NAMES.get(name, name))
        except (LookupError, UnicodeDecodeError):
            return data.decode("latin-1")


def _url(member: str) -> str:
    """The address of a paper's abstract; empty for a name that is no paper's number."""
    found = _PAPER.fullmatch(member.rpartition("/")[2])
    if not found:
        return ""
    archive, number = found.groups()
    return (
        f"https://arxiv.org/abs/{archive}/{number}"
        if archive
        else f"https://arxiv.org/abs/{number}"
    )
