"""Which sources of a recipe are built, and where they read, when the command line says so."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.config import BuildConfig, FilesSource


def with_input(config: BuildConfig, where: str) -> BuildConfig:
    """The recipe with its sources below a folder, file or URL.

    A source that has a path reads from that path below `where`, one whose path is empty from
    `where` itself. A recipe none of whose sources has a path, as the demo's, takes any text files
    from there instead.
    """
    sources: list[Any] = list(config.sources)
    with_path = [index for index, source in enumerate(sources) if hasattr(source, "path")]
    if not with_path:
        return dataclasses.replace(config, sources=(FilesSource(path=where),), mixture=())
    for index in with_path:
        below = sources[index].path
        path = f"{where.rstrip('/')}/{below}" if below else where
        sources[index] = dataclasses.replace(sources[index], path=path)
    return dataclasses.replace(config, sources=tuple(sources))


def with_files_there(config: BuildConfig, where: str) -> BuildConfig:
    """The recipe with the filters whose files are there, of those that ask for it (`if_there`).

    Their paths are below `where`, the input; what is left out is said on stderr.
    """
    left_out: dict[str, list[str]] = {}

    def there(owner: str, filters: tuple[Any, ...]) -> Iterator[Any]:
        for given in filters:
            if not getattr(given, "if_there", False):
                yield given
                continue
            one = hasattr(given, "path")
            paths = [_below(where, path) for path in ([given.path] if one else given.paths)]
            if missing := [path for path in paths if "://" in path or not Path(path).exists()]:
                left_out.setdefault(missing[0], []).append(f"{type(given).__name__} of {owner}")
            else:
                named = {"path": paths[0]} if one else {"paths": tuple(paths)}
                yield dataclasses.replace(given, if_there=False, **named)

    sources: list[Any] = list(config.sources)
    for index, source in enumerate(sources):
        for field in ("filters", "file_filters"):
            if given := getattr(source, field, ()):
                filters = tuple(there(source.name, given))
                source = dataclasses.replace(source, **{field: filters})
        sources[index] = source
    for path, what in left_out.items():
        why = "is a URL, and is read from this machine alone" if "://" in path else "is not there"
        print(f"{path} {why}; left out: {', '.join(what)}.", file=sys.stderr)
    return dataclasses.replace(config, sources=tuple(sources))


def _below(where: str, path: str) -> str:
    if not where or "://" in path or Path(path).is_absolute():
        return path
    return f"{where.rstrip('/')}/{path}"


def refuse_url(option: str, path: Path | None) -> None:
    """Raises ValueError if a folder to write to is a URL, of whose "//" a path has kept one."""
    if found := re.match(r"([a-z][a-z0-9+.-]+):/+", str(path or "")):
        url = f"{found[1]}://{str(path)[found.end() :]}"
        raise ValueError(
            f"{option}={url}: what stages leave to one another is written to a folder of a file "
            "system. Give one here, or where a bucket is mounted."
        )


def without(config: BuildConfig, names: tuple[str, ...]) -> BuildConfig:
    """The recipe without some of its sources; the mixture's other weights stay.

    Raises:
        ValueError: If there is no such source.
    """
    known = [source.name for source in config.sources]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"--skip={unknown[0]}: there is no such source, but {', '.join(known)}.")
    return dataclasses.replace(
        config,
        sources=tuple(source for source in config.sources if source.name not in names),
        mixture=tuple(pair for pair in config.mixture if pair[0] not in names),
    )
