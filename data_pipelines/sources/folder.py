"""The file that a source names, or the files below its folder."""

from collections.abc import Iterator
from pathlib import Path


def existing_path(source: str, path: str, *, give: str) -> Path:
    """The path of a source.

    Args:
        source: Its name.
        path: As configured.
        give: What to give instead, such as "a folder of .txt books".

    Raises:
        ValueError: If there is no such file or folder.
    """
    if not path or not Path(path).exists():
        raise ValueError(
            f"sources.{source}.path={path!r}: there is no such file or folder; give {give}."
        )
    return Path(path)


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Files sorted by their names, which are paths below `root`; `root` alone if it is a file."""
    if root.is_file():
        yield root.name, root
        return
    paths = (path for path in root.rglob("*") if path.is_file())
    yield from sorted((path.relative_to(root).as_posix(), path) for path in paths)
