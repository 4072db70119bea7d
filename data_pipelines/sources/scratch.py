"""A table on disk for what a raw file gives in another order than it is wanted."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_database(owner: str, *statements: str) -> Iterator[sqlite3.Connection]:
    """An SQLite database in the temporary folder (`TMPDIR`), gone afterwards.

    Args:
        owner: Who wants it, such as "sources.github", for the message.
        *statements: What makes its tables.

    Raises:
        OSError: If the temporary folder is full.
    """
    with tempfile.TemporaryDirectory(prefix="llama_jax_") as folder:
        try:
            with contextlib.closing(
                sqlite3.connect(Path(folder, "scratch.sqlite"), isolation_level=None)
            ) as database:
                # Nothing outlives this reading: no journal, no waiting for the disk. The cache,
                # 8 MiB, is also what a sort holds before it goes to a file.
                for pragma in (
                    "journal_mode=OFF",
                    "synchronous=OFF",
                    "temp_store=FILE",
                    "cache_size=-8192",
                ):
                    database.execute(f"PRAGMA {pragma}")
                for statement in (*statements, "BEGIN"):
                    database.execute(statement)
                yield database
        except sqlite3.OperationalError as error:
            raise OSError(
                f"{owner}: {error}, in {tempfile.gettempdir()}. Set TMPDIR to a folder with room "
                "for about twice the unpacked size of a raw file."
            ) from error
