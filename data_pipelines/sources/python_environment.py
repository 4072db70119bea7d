"""The Python sources and documentation of this interpreter and its installed packages."""

import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ..document import Document, Dropped, RawFile
from .folder import readable

_SUFFIXES = frozenset({".py", ".pyi", ".rst", ".md", ".txt"})
_MIN_BYTES = 200
_MAX_BYTES = 1_000_000
_MAX_MEAN_LINE = 160
_HEAD_CHARS = 1000
_GENERATED = re.compile(
    r"(?im)\bdo not (edit|modify)\b|\bauto(matically)?[- ]?generated\b"
    r"|^\W*(this file (is|was) )?generated (by|from|with|on)\b"
)


class PythonEnvironment:
    """Text files below the standard library and site-packages.

    Ids are paths below those two roots, "stdlib/asyncio/base_events.py" for instance, so that the
    same packages give the same documents wherever the environment lies.
    """

    def files(self) -> Iterator[RawFile]:
        """Every file of Python or of its documentation; see `DocumentSource`."""
        found = sorted(
            RawFile(
                name,
                str(path),
                path.stat().st_size,
                unread="" if os.access(path, os.R_OK) else "cannot be read",
            )
            for name, path in self._files()
        )
        if not found:
            raise ValueError(
                "sources.python is empty: no "
                f"{', '.join(sorted(_SUFFIXES))} or METADATA file below "
                f"{' or '.join(str(root) for _, root in _roots())}."
            )
        yield from found

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """The file, if it reads like something a person wrote; see `DocumentSource`."""
        if (text := _read(file, dropped)) is not None:
            yield Document(file.name, text)

    def _files(self) -> Iterator[tuple[str, Path]]:
        for label, root in _roots():
            for folder, subfolders, files in os.walk(root):
                # A base installation keeps site-packages inside the standard library.
                skipped = {"__pycache__", "site-packages", "dist-packages"}
                subfolders[:] = sorted(set(subfolders) - skipped)
                for file in sorted(files):
                    path = Path(folder, file)
                    wanted = path.suffix in _SUFFIXES or file == "METADATA"
                    if wanted and path.is_file() and not path.is_symlink():
                        yield readable(f"{label}/{path.relative_to(root).as_posix()}"), path


def _roots() -> list[tuple[str, Path]]:
    paths = [("stdlib", "stdlib"), ("site-packages", "purelib"), ("site-packages", "platlib")]
    roots = {Path(sysconfig.get_path(key)).resolve(): label for label, key in reversed(paths)}
    return [(label, root) for root, label in reversed(roots.items())]


def _read(file: RawFile, dropped: Dropped) -> str | None:
    """The file's text, or None, with the reason recorded."""
    name = file.name
    if file.unread:
        return dropped.add_bad(file.unread, name)
    if file.size_bytes < _MIN_BYTES:
        return dropped.add(f"shorter than {_MIN_BYTES} bytes", name)
    if file.size_bytes > _MAX_BYTES:
        return dropped.add(f"longer than {_MAX_BYTES:,} bytes", name)
    with file.open() as opened:
        data = opened.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return dropped.add("not UTF-8", name)
    if len(text) / (text.count("\n") + 1) > _MAX_MEAN_LINE:
        return dropped.add(f"lines of more than {_MAX_MEAN_LINE} characters on average", name)
    if _GENERATED.search(text[:_HEAD_CHARS]):
        return dropped.add("says that it is generated", name)
    return text
