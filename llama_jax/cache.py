"""Where a person's machine keeps what can be made or fetched again."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` of ours below `XDG_CACHE_HOME`, or `~/.cache`; it may be absent."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama_jax" / name
