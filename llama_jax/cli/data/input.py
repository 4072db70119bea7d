"""Which sources of a recipe are built, and where they read, when the command line says so."""

import dataclasses
import re
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
