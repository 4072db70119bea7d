"""From a document of the shards back to the raw record that it was made from."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .tables import DOCUMENTS_FOLDER, Hashed, from_batch


def find_document(
    directory: Path, source: str, split: str, number: int, held_out_fraction: float
) -> Hashed | None:
    """The cleaned document that is the given one of a split; None if there are not so many.

    Documents of a split are in the order of the cleaned ones, without those of the other split: so
    their hashes are counted, 32 bytes a document, and one group of rows is read.

    Args:
        directory: Of the dataset.
        source: Name of the source.
        split: "train" or "heldout".
        number: Of the document in the split.
        held_out_fraction: As the dataset was built.

    Raises:
        ValueError: If the cleaned documents are not there.
    """
    folder = directory / DOCUMENTS_FOLDER
    files = sorted(folder.glob(f"{source}-*.parquet"))
    if not files:
        raise ValueError(
            f"DIR={str(directory)!r} has no {DOCUMENTS_FOLDER}/{source}-*.parquet: where a "
            "document came from is written there; build the data anew."
        )
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = _rows_of_split(file, group, split, held_out_fraction)
                if number < len(rows):
                    return next(_read_row(file, group, int(rows[number])))
                number -= len(rows)
    return None


def _rows_of_split(file: pq.ParquetFile, group: int, split: str, fraction: float) -> np.ndarray:
    digests = file.read_row_group(group, columns=["digest"])["digest"].to_pylist()
    numbers = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4)[:, 1]
    # As `Hashed.is_held_out`: an integer is below a number where it is below its ceiling.
    limit = math.ceil(fraction * 2**64)
    held_out = numbers < np.uint64(limit) if limit < 2**64 else np.ones(len(numbers), bool)
    return np.flatnonzero(held_out == (split == "heldout"))


def _read_row(file: pq.ParquetFile, group: int, row: int) -> Iterator[Hashed]:
    one = file.read_row_group(group).slice(row, 1).combine_chunks()
    for batch in one.to_batches():
        yield from from_batch(batch)
